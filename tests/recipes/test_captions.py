"""The captioners' recipes on a collection of eight kinds of pictures, written in Flickr8k's layout."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from sightline.metrics.captions import cider_d_each
from sightline.recipes import captions, self_critical, show_and_tell, show_attend_tell
from sightline.recipes.machines import halves
from sightline.recipes.plan import recipe_of
from sightline.recipes.train import evaluate, train
from sightline.tasks.caption import CaptionError, caption, open_captioner

COLOURS = {"red": (200, 30, 30), "green": (30, 160, 50), "blue": (40, 60, 210), "yellow": (230, 200, 40)}
SHAPES = ("ball", "box")


def write(root: Path, train_count: int = 24, val: int = 8) -> Path:
    """Pictures of one coloured thing, two captions each."""
    random = np.random.default_rng(0)
    (root / "Flicker8k_Dataset").mkdir(parents=True)
    tokens, lists = [], {"train": [], "dev": []}
    for number in range(train_count + val):
        colour, shape = list(COLOURS)[number % 4], SHAPES[number // 4 % 2]
        picture = Image.new("RGB", (64, 48), tuple(int(v) for v in random.integers(90, 160, 3)))
        left, top = (int(v) for v in random.integers(2, 14, 2))
        drawn = ImageDraw.Draw(picture)
        (drawn.ellipse if shape == "ball" else drawn.rectangle)((left, top, left + 30, top + 30), fill=COLOURS[colour])
        name = f"{number:03d}.jpg"
        picture.save(root / "Flicker8k_Dataset" / name)
        tokens += [f"{name}#0\tA {colour} {shape} is here .", f"{name}#1\tHere is a {shape} which is {colour} ."]
        lists["train" if number < train_count else "dev"].append(name)
    (root / "Flickr8k.token.txt").write_text("\n".join(tokens) + "\n")
    for split, names in lists.items():
        (root / f"Flickr_8k.{split}Images.txt").write_text("\n".join(names) + "\n")
    return root


@pytest.fixture(scope="session")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("things"))


@pytest.fixture(scope="session")
def run(things: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run of soft attention; the features' cache lies beside it."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIGHTLINE_CACHE", str(folder / "cache"))
        return train("show_attend_tell", f"flickr8k:{things}", out=folder / "soft", tiny=True)


@pytest.fixture(autouse=True)
def cache(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(run.parent / "cache"))


def test_a_tiny_run_learns_to_say_what_it_sees(run: Path, things: Path) -> None:
    card = json.loads((run / "weights" / "card.json").read_text())
    measured = card["measured"]
    assert measured["bleu4"] > 0.6
    assert measured["bleu4"] > 1.2 * measured["other_photographs"]["bleu4"]  # and not only what is always said
    assert measured["different_captions"] >= 4
    assert (card["encoder"], card["grid"]) == ("efficientnet_lite0", [7, 7])
    assert (run / "samples.png").stat().st_size > 1000
    again = evaluate(run / "weights", f"flickr8k:{things}")
    assert again["bleu4"] == pytest.approx(measured["bleu4"])
    assert again["greedy"] == pytest.approx(measured["greedy"])


def test_photographs_are_captioned_by_a_trained_folder(run: Path, things: Path) -> None:
    opened = open_captioner(run / "weights")
    right = 0
    for number in range(24, 32):
        said = caption(things / "Flicker8k_Dataset" / f"{number:03d}.jpg", system=opened, beam=2)
        right += list(COLOURS)[number % 4] in said.words
        assert said.attention is not None
        assert len(said.words) == len(said.probabilities) == len(said.attention.maps)
        assert said.text.endswith(".") and said.text[0].isupper()  # noqa: PT018
    assert right >= 6
    with pytest.raises(CaptionError, match="no captioner 'nothing'"):
        open_captioner("nothing")
    with pytest.raises(CaptionError, match="1 or more"):
        caption(things / "Flicker8k_Dataset" / "000.jpg", system=opened, beam=0)


@pytest.mark.usefixtures("no_drawings")
def test_the_reward_goes_on_from_trained_weights(run: Path, things: Path, tmp_path: Path) -> None:
    given = {"tiny": True, "init": str(run / "weights"), "steps": 3}
    folder = train("self_critical", f"flickr8k:{things}", out=tmp_path / "worth", **given)
    before = json.loads((run / "metrics.json").read_text())["measured"]["bleu4"]
    after = json.loads((folder / "metrics.json").read_text())["measured"]["bleu4"]
    assert after > 0.8 * before


def test_the_reward_is_higher_for_better_captions(things: Path) -> None:
    data = captions.open_data(f"flickr8k:{things}", "train")
    recipe = self_critical.Recipe(
        show_attend_tell.build(data, **show_attend_tell.TINY_SYSTEM), self_critical.Settings(**self_critical.TINY), data
    )
    truth = [data.words[0]] * 3
    worth = recipe.reward([truth[0][0], ["a", "green", "ball"], []], truth)
    assert worth[0] > worth[1] > worth[2]
    # both on the scale of their tables: a tenth of CIDEr-D would leave the reward to BLEU, and captions would shrink
    assert float(worth[0]) == pytest.approx(cider_d_each([truth[0][0]], truth[:1], recipe.frequency)[0] + 0.5, abs=1e-4)
    assert abs(worth[2]) < 1e-6
    closed = self_critical._closed(torch.tensor([[5, 2, 2], [5, 6, 7]]), torch.tensor([2, 3]), recipe.system)
    assert closed.tolist() == [[1, 5, 2, 0], [1, 5, 6, 7]]


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["self_critical", "self_critical_control"])
def test_what_is_drawn_is_what_is_learned(
    things: Path, name: str, precision: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    if precision == torch.bfloat16 and not halves():
        pytest.skip("this CPU does not compute bfloat16, so torch has no LSTM in it; training takes float32 there")
    file = recipe_of(name)
    data = captions.open_data(f"flickr8k:{things}", "train")
    settings = self_critical.Settings(**self_critical.TINY | {"temperature": 0.7})
    recipe = file.Recipe(file.build(data, **file.TINY_SYSTEM), settings, data)
    recipe.log = lambda *given, **named: None  # type: ignore[method-assign]
    drawn, learned, sample, reinforce = [], [], self_critical.sample, self_critical.reinforce
    monkeypatch.setattr(self_critical, "sample", lambda *a, **k: drawn.append(sample(*a, **k)) or drawn[0])
    monkeypatch.setattr(self_critical, "reinforce", lambda *a: learned.append(a[0]) or reinforce(*a))
    batch = captions.read_batch(data, np.arange(8), recipe)
    torch.manual_seed(0)
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        loss = recipe.training_step(batch, 0)
    loss.backward()
    close = 1e-4 if precision == torch.float32 else 0.02
    assert float(learned[0].detach().sum()) == pytest.approx(float(drawn[0].scores.sum()), rel=close)
    assert not {0, 1, 3} & set(drawn[0].tokens.flatten().tolist())
    matrices = {name: p.grad for name, p in recipe.system.named_parameters() if p.ndim > 1}
    assert not [name for name, grad in matrices.items() if grad is None or not grad.any()]


@pytest.mark.parametrize("kind", ["hard", "soft", "none"])
def test_every_kind_steps_and_measures(things: Path, kind: str) -> None:
    file = recipe_of("show_and_tell" if kind == "none" else "show_attend_tell")
    data, held = (file.open_data(f"flickr8k:{things}", split) for split in ("train", "val"))
    file.agree(data, held)
    sizes = file.TINY_SYSTEM | ({} if kind == "none" else {"kind": kind})
    recipe = file.Recipe(file.build(data, **sizes), file.Settings(**file.TINY), data)
    batch = file.read_batch(data, np.array([0, 1, 7]), recipe)
    assert batch["features"].shape == (3, 49, 1280)
    assert batch["tokens"].shape[:2] == (3, 2)
    loss = recipe.training_step(batch, 0)
    loss.backward()
    assert torch.isfinite(loss)
    recipe.eval()
    with torch.no_grad():
        assert 0 <= file.measure(recipe, held)["bleu4"] <= 1


def test_mirror_images_are_samples_of_their_own(things: Path) -> None:
    data = captions.open_data(f"flickr8k:{things}", "train")
    assert len(data) == 48
    two = data.batch(np.array([6, 7]))
    assert torch.equal(two["tokens"][0], two["tokens"][1])
    assert not torch.equal(two["features"][0], two["features"][1])
    # the encoder is not quite symmetric, but nearly so
    turned = two["features"][0].view(7, 7, -1).flip(1).reshape(49, -1)
    likeness = torch.cosine_similarity(turned.flatten(), two["features"][1].flatten(), dim=0)
    assert likeness > torch.cosine_similarity(two["features"][0].flatten(), two["features"][1].flatten(), dim=0)


def test_a_recipe_has_what_its_frames_have() -> None:
    control = recipe_of("self_critical_control")
    assert control.build is show_and_tell.build  # its own
    assert control.Recipe is self_critical.Recipe  # of its frame
    assert control.HELD == show_attend_tell.HELD  # of the frame of that one
    assert control.measure is captions.measure
    assert not hasattr(control, "order")
