"""Segmenter's recipes: tiny runs learn, resumed runs are the run, crops and weights do what they say."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from safetensors.torch import load_file

from sightline.checkpoints import bundled
from sightline.recipes import segmentations, segmenter, segmenter_hybrid
from sightline.recipes.crops import cut_some
from sightline.recipes.pixel_batches import class_weights, read_batch
from sightline.recipes.train import evaluate, train
from sightline.recipes.within import Within
from sightline.systems.segmenter import VOID

CLASSES = ("wall", "floor", "disc", "box")


def draw(random: np.random.Generator, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A wall above a floor, in any colours, and on them a disc and a box; a frame of void around."""
    height, width = size
    down, across = np.mgrid[0:height, 0:width]
    truth = (down > height * random.uniform(0.4, 0.7)).astype(np.uint8)
    y, x, radius = random.uniform(10, height - 10), random.uniform(10, width / 2), random.uniform(7, 12)
    truth[(down - y) ** 2 + (across - x) ** 2 < radius**2] = 2
    top, left, side = random.uniform(2, height - 26), random.uniform(width / 2, width - 26), random.uniform(14, 24)
    truth[(down >= top) & (down < top + side) & (across >= left) & (across < left + side)] = 3
    colours = np.array([[200, 200, 190], [90, 110, 80], [190, 60, 50], [50, 70, 180]]) + random.normal(0, 12, (4, 3))
    picture = colours[truth] + random.normal(0, 8, (height, width, 3))
    truth[:2], truth[-2:] = 9, 9
    return picture.clip(0, 255).astype(np.uint8), truth


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> str:
    root, random = tmp_path_factory.mktemp("scenes"), np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 6)):
        for number in range(count):
            picture, truth = draw(random, (96, 120 if number % 3 else 132))
            for part, values, suffix in (("images", picture, "jpg"), ("labels", truth, "png")):
                folder = root / part / split
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(folder / f"{number:03d}.{suffix}", quality=95)
    (root / "classes.txt").write_text("\n".join(CLASSES))
    return f"camvid:{root}"


def test_the_legend_of_samples_stays_on_the_paper(scenes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, dpi: drawn.append(figure))
    monkeypatch.setattr(
        segmentations, "probabilities", lambda recipe, image: torch.rand(1, 12, *np.asarray(image).shape[:2])
    )
    for length in (4, 30, 70):
        made = SimpleNamespace(palette=np.zeros((12, 3), np.uint8), classes=[("chair of a " * 9)[:length]] * 12)
        segmentations.draw_samples(made, segmentations.open_data(scenes, "val"), tmp_path / "samples.png")
        drawn[-1].draw_without_rendering()
        legend = drawn[-1].legends[0].get_window_extent()
        assert legend.x0 >= 0, length
        assert legend.x1 <= drawn[-1].bbox.x1, length


@pytest.mark.parametrize(("system", "decoder_depth"), [("segmenter", 1), ("segmenter", 0), ("segmenter_hybrid", 1)])
def test_a_tiny_run_learns(scenes: str, tmp_path: Path, system: str, decoder_depth: int) -> None:
    run = train(system, scenes, out=tmp_path / "run", tiny=True, decoder_depth=decoder_depth)
    card = json.loads((run / "weights" / "card.json").read_text("utf-8"))
    found = card["measured"]
    assert found["blind"]["miou"] < 0.4
    assert found["miou"] > 0.65
    assert found["pixel_accuracy"] > max(0.85, found["blind"]["pixel_accuracy"] + 0.05)
    assert set(found["iou"]) == set(CLASSES)
    assert np.mean(list(found["iou"].values())) == pytest.approx(found["miou"])
    assert card["classes"] == list(CLASSES)
    assert len(card["palette"]) == 4
    assert card["image_size"] == [64, 64]
    assert evaluate(run / "weights", scenes) == found
    with pytest.raises(ValueError, match=r"4 classes \(wall, floor, disc …\) were learned, the data has 7 classes"):
        evaluate(run / "weights", "world:10")
    assert not (run / "weights" / "README.md").exists()
    with Image.open(run / "samples.png") as picture:
        assert picture.width > 900


@pytest.mark.usefixtures("no_drawings")
def test_the_generated_world_teaches_too(tmp_path: Path) -> None:
    given: dict[str, Any] = {"steps": 120, "decoder_depth": 0, "average": 0.8, "largest": 1.0, "smallest": 1.0}
    run = train("segmenter", "world:64", out=tmp_path / "run", tiny=True, rate=3e-3, **given)
    made = json.loads((run / "metrics.json").read_text("utf-8"))
    assert made["measured"]["pictures"] == 10
    assert np.mean(made["losses"][-20:]) < 0.5 * np.mean(made["losses"][:3])
    assert made["measured"]["miou"] > made["measured"]["blind"]["miou"] + 0.01  # "ground" everywhere gives 0.12


@pytest.mark.usefixtures("no_drawings")
@pytest.mark.parametrize("system", ["segmenter", "segmenter_hybrid"])
def test_a_resumed_run_is_the_run(scenes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str) -> None:
    """Cut off in the middle of an epoch, between two checkpoints."""
    given: dict[str, Any] = {"tiny": True, "steps": 10, "batch": 4, "save_every": 4, "held": 2, "balance": 0.5}
    whole = train(system, scenes, out=tmp_path / "whole", **given)
    step = segmenter.Recipe.training_step

    def cut_off(recipe: segmenter.Recipe, batch: dict[str, torch.Tensor], number: int) -> torch.Tensor:
        if recipe.global_step == 6:
            raise RuntimeError("power cut")
        return step(recipe, batch, number)

    monkeypatch.setattr(segmenter.Recipe, "training_step", cut_off)
    with pytest.raises(RuntimeError, match="power cut"):
        train(system, scenes, out=tmp_path / "cut", **given)
    monkeypatch.undo()
    torch.manual_seed(99)
    resumed = train(resume=tmp_path / "cut")
    first, second = (json.loads((run / "metrics.json").read_text("utf-8")) for run in (whole, resumed))
    assert len(second["losses"]) == 10
    np.testing.assert_allclose(second["losses"], first["losses"], rtol=0, atol=1e-6)
    assert second["measured"] == first["measured"]
    before, after = (load_file(run / "weights" / "model.safetensors") for run in (whole, resumed))
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=1e-6)


def test_the_hybrid_starts_from_the_bundled_convolutions(scenes: str) -> None:
    data = segmentations.open_data(scenes, "train")
    theirs: Any = bundled("efficientnet_lite0")
    for pretrained in (True, False):
        network: Any = segmenter_hybrid.build(data, **segmenter_hybrid.TINY_SYSTEM)
        recipe = segmenter_hybrid.Recipe(network, segmenter_hybrid.Settings(pretrained=pretrained), data)
        mine = network.features.blocks[14].narrow[0].weight
        assert torch.equal(mine, theirs.blocks[14].narrow[0].weight) is pretrained
        kept: Any = recipe.kept
        assert torch.equal(kept.features.blocks[14].narrow[0].weight, mine)


def test_convolutions_learn_slower_or_not_at_all(scenes: str) -> None:
    data = segmentations.open_data(scenes, "train")
    for slower in (0.0, 0.25):
        network: Any = segmenter_hybrid.build(data, **segmenter_hybrid.TINY_SYSTEM)
        recipe = segmenter_hybrid.Recipe(network, segmenter_hybrid.Settings(slower=slower, rate=0.1), data)
        groups = recipe.groups()
        counted = [id(parameter) for group in groups for parameter in group["params"]]
        wanted = [id(p) for p in network.parameters() if p.requires_grad]
        assert sorted(counted) == sorted(wanted)
        below = {id(p) for p in network.features.parameters()}
        rates = {group.get("lr", 0.1) for group in groups if below & {id(p) for p in group["params"]}}
        assert rates == ({0.025} if slower else set())
        assert all(p.requires_grad for p in network.decoder.parameters())


def test_tokens_positions_norms_and_biases_do_not_decay(scenes: str) -> None:
    data = segmentations.open_data(scenes, "train")
    network = segmenter.build(data, **segmenter.TINY_SYSTEM)
    recipe = segmenter.Recipe(network, segmenter.Settings(), data)
    decaying = {id(p) for p in recipe.groups()[0]["params"]}
    names = {name for name, p in network.named_parameters() if id(p) in decaying}
    assert recipe.groups()[0]["weight_decay"] > 0 == recipe.groups()[1]["weight_decay"]
    assert "encoder.layers.0.attention.query.weight" in names
    assert "decoder.patch_projection" in names
    assert not {n for n in names if "norm" in n or n.endswith(("bias", "class_token", "class_tokens", "table"))}


def test_warm_up_and_decay_follow_the_steps_that_within_leaves(scenes: str) -> None:
    """Of 3000 steps asked for, time allows 100: the warm-up is 4 steps of these, not 120, and the rate ends low."""
    data = segmentations.open_data(scenes, "train")
    recipe = segmenter.Recipe(
        segmenter.build(data, **segmenter.TINY_SYSTEM), segmenter.Settings(steps=3000, rate=1.0), data
    )
    callback: Any = Within(recipe, 60)
    made = recipe.configure_optimizers()
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    trainer: Any = SimpleNamespace(fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(max_steps=3000)))
    rates = []
    for step in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        if step == 10:
            assert rates[-1] == pytest.approx(11 / 120)  # so far nothing says that the steps are too many
            callback.steps = 100
            callback._set(trainer, recipe)
        optimizer.step()
        schedule.step()
    assert trainer.fit_loop.epoch_loop.max_steps == 100
    np.testing.assert_allclose(rates[11:], [(1 - step / 100) ** 0.9 for step in range(11, 100)], rtol=1e-6)


def test_sizes_stay_where_crops_are_drawn(scenes: str) -> None:
    """On a GPU, to hear them would be to wait for it at each step; "meta" stands for one here."""
    data = segmentations.open_data(scenes, "train")
    recipe = segmenter.Recipe(segmenter.build(data, **segmenter.TINY_SYSTEM), segmenter.Settings(), data)
    batch = read_batch(data, np.array([0, 1]), recipe)
    moved = recipe.transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert {name: value.device.type for name, value in moved.items()} == {
        "images": "meta",
        "labels": "meta",
        "sizes": "cpu",
    }
    assert torch.equal(moved["sizes"], batch["sizes"])


def test_crops_show_the_labels_of_what_they_show() -> None:
    """A picture that is its own label: whatever scale and place, colour and number stay together."""
    torch.manual_seed(0)
    numbers = torch.randint(0, 5, (6, 5, 7)).repeat_interleave(16, 1).repeat_interleave(16, 2)
    images = numbers[:, None].expand(-1, 3, -1, -1).float()
    sizes = torch.tensor([[80, 112]] * 5 + [[48, 64]])
    for short in (0, 40, 160):
        cut, labels = cut_some(images, numbers, sizes, crop=(48, 32), scales=(0.5, 2.0), short=short)
        assert cut.shape == (6, 3, 48, 32)
        seen = labels != VOID
        assert seen.float().mean() > 0.4
        near = (cut[:, 0] - labels).abs() < 0.01  # between two fields colours mix
        assert near[seen].float().mean() > 0.8
        assert (cut[~seen.unsqueeze(1).expand(-1, 3, -1, -1)] == 0).all()


def test_scale_one_of_the_right_size_is_the_picture_or_its_mirror() -> None:
    torch.manual_seed(0)
    images, labels = torch.rand(8, 3, 20, 30), torch.randint(0, 9, (8, 20, 30))
    cut, numbers = cut_some(images, labels, torch.tensor([[20, 30]] * 8), crop=(20, 30), scales=(1.0, 1.0))
    mirrored = 0
    for row in range(8):
        turned = torch.allclose(cut[row], images[row].flip(2), atol=1e-5)
        mirrored += turned
        wanted = (images[row].flip(2), labels[row].flip(1)) if turned else (images[row], labels[row])
        torch.testing.assert_close(cut[row], wanted[0], atol=1e-5, rtol=0)
        assert torch.equal(numbers[row], wanted[1])
    assert 0 < mirrored < 8


def test_short_scales_each_picture_by_its_own_size() -> None:
    """Two pictures of one field, one twice as large: brought to one short side they look alike."""
    field = torch.arange(4).view(2, 2)
    small, large = (field.repeat_interleave(k, 0).repeat_interleave(k, 1) for k in (10, 20))
    batch = torch.full((2, 40, 40), VOID)
    batch[0, :20, :20], batch[1] = small, large
    images = batch[:, None].expand(-1, 3, -1, -1).float()
    torch.manual_seed(3)
    _, labels = cut_some(images, batch, torch.tensor([[20, 20], [40, 40]]), crop=(30, 30), scales=(1.0, 1.0), short=30)
    for row in range(2):
        assert {*labels[row].unique().tolist()} == {0, 1, 2, 3}
        assert (labels[row].flatten().bincount(minlength=4) == 225).all()


def test_batches_are_filled_up_with_void(scenes: str) -> None:
    data = segmentations.open_data(scenes, "train")
    recipe = segmenter.Recipe(segmenter.build(data, **segmenter.TINY_SYSTEM), segmenter.Settings(), data)
    batch = read_batch(data, np.array([0, 1]), recipe)
    assert batch["images"].shape == (2, 3, 96, 132)
    assert batch["sizes"].tolist() == [[96, 132], [96, 120]]
    assert (batch["labels"][1, :, 120:] == VOID).all()
    assert (batch["images"][1, :, :, 120:] == 127).all()
    assert torch.equal(batch["images"][1, :, :, :120], torch.tensor(data.image(1)).permute(2, 0, 1))
    shrunk = segmenter.Recipe(segmenter.build(data, **segmenter.TINY_SYSTEM), segmenter.Settings(short=48), data)
    assert read_batch(data, np.array([0, 1]), shrunk)["sizes"].tolist() == [[48, 66], [48, 60]]


def test_rare_classes_weigh_more_and_the_mean_pixel_weighs_one(scenes: str) -> None:
    data = segmentations.open_data(scenes, "train")
    counts = np.zeros(256)
    for index in range(len(data)):
        counts += np.bincount(data.labels(index).ravel(), minlength=256)
    shares = counts[:4] / counts[:4].sum()
    assert torch.equal(class_weights(data, 0.0), torch.ones(4))
    for balance in (0.5, 1.0):
        weights = class_weights(data, balance).numpy()
        assert (shares * weights).sum() == pytest.approx(1)
        np.testing.assert_allclose(weights / weights[0], (shares[0] / shares) ** balance, rtol=1e-5)


@pytest.mark.usefixtures("no_drawings")
def test_many_scales_are_measured_beside_one(scenes: str, tmp_path: Path) -> None:
    run = train("segmenter", scenes, out=tmp_path / "run", tiny=True, steps=3, multi_scale=True, held=1)
    found = json.loads((run / "metrics.json").read_text("utf-8"))["measured"]
    assert set(found["multi_scale"]) == {"miou", "pixel_accuracy", "class_accuracy", "iou"}
    assert found["multi_scale"]["pixel_accuracy"] != found["pixel_accuracy"]


def test_classes_follow_the_data(scenes: str) -> None:
    data = segmentations.open_data(scenes, "train")
    assert segmenter.build(data).classes == 4
    with pytest.raises(ValueError, match="classes=9: the data has 4; leave it out"):
        segmenter.build(data, classes=9)
    other = segmentations.open_data(scenes, "val")
    other.classes = (*CLASSES[:3], "tree")
    with pytest.raises(ValueError, match="train has 4 classes, val 4, or others"):
        segmentations.agree(data, other)
