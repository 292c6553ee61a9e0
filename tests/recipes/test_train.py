import json
import math
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import sightline.recipes.train as recipes
from sightline.cli.failures import exit_code
from sightline.data.labelled import open_labelled
from sightline.recipes import vit, watch
from sightline.recipes.batches import Order
from sightline.recipes.train import TrainingError, evaluate, train
from sightline.systems.vit import VisionTransformer

Write = Callable[..., Path]
SHORT = {"steps": 20, "batch": 6, "save_every": 5, "mix": 0.5}

pytestmark = pytest.mark.usefixtures("no_drawings")  # of all runs but those for the whole module


@pytest.fixture(scope="module")
def learned(patterns: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train("vit", f"folder:{patterns}", out=tmp_path_factory.mktemp("runs") / "vit", tiny=True)


@pytest.fixture(scope="module")
def short(patterns: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train("vit", f"folder:{patterns}", out=tmp_path_factory.mktemp("runs") / "short", tiny=True, **SHORT)


def test_a_tiny_run_learns(learned: Path) -> None:
    metrics = json.loads((learned / "metrics.json").read_text())
    assert metrics["measured"]["top1"] >= 0.95 > 2 * metrics["measured"]["chance"]
    assert np.mean(metrics["losses"][-20:]) < np.mean(metrics["losses"][:20])


def test_a_run_leaves_everything(learned: Path) -> None:
    assert {file.name for file in learned.iterdir()} == {
        *("weights", "metrics.json", "curves.png", "samples.png", "command.txt", "run.json", "checkpoints")
    }
    for picture in ("curves.png", "samples.png"):
        with Image.open(learned / picture) as drawn:
            assert np.asarray(drawn.convert("L")).std() > 5
    command = (learned / "command.txt").read_text()
    assert command.startswith("sightline train vit --data 'folder:")
    assert "steps=100" in command
    card = json.loads((learned / "weights" / "card.json").read_text())
    assert card["classes"] == ["across", "disc", "down"]
    assert card["image_size"] == 32
    assert card["passes"] == 100 * 32


def test_saved_weights_measure_the_same(learned: Path, patterns: Path) -> None:
    metrics = json.loads((learned / "metrics.json").read_text())
    assert evaluate(learned / "weights", f"folder:{patterns}") == metrics["measured"]
    system = VisionTransformer.from_pretrained(learned / "weights")
    assert sum(p.numel() for p in system.parameters()) == metrics["parameters"]


def test_shuffled_labels_measure_as_chance(learned: Path, patterns: Path, tmp_path: Path) -> None:
    # each class folder gets a third of every kind, so nothing can be known
    kinds = ("across", "disc", "down")
    for part in ("train", "val"):
        for number, kind in enumerate(kinds):
            folder = tmp_path / part / kind
            folder.mkdir(parents=True)
            for place, file in enumerate(f for k in kinds for f in sorted((patterns / part / k).iterdir())):
                if place % 3 == number:
                    (folder / f"{place}.png").write_bytes(file.read_bytes())
    assert abs(evaluate(learned / "weights", f"folder:{tmp_path}")["top1"] - 1 / 3) < 0.2


@pytest.mark.parametrize("system", ["vit", "vit_control"])
def test_a_resumed_run_is_the_run(
    system: str, short: Path, patterns: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = f"folder:{patterns}"
    whole = short if system == "vit" else train(system, data, out=tmp_path / "whole", tiny=True, **SHORT)
    step = vit.Recipe.training_step

    def cut_off(self: vit.Recipe, batch: dict, number: int) -> torch.Tensor:
        if self.global_step == 13:
            raise RuntimeError("power cut")
        return step(self, batch, number)

    monkeypatch.setattr(vit.Recipe, "training_step", cut_off)
    with pytest.raises(RuntimeError, match="power cut"):
        train(system, data, out=tmp_path / "cut", tiny=True, **SHORT)
    monkeypatch.undo()
    torch.manual_seed(99)
    resumed = train(resume=tmp_path / "cut")

    first, second = (json.loads((run / "metrics.json").read_text()) for run in (whole, resumed))
    assert len(second["losses"]) == 20
    np.testing.assert_allclose(second["losses"], first["losses"], rtol=0, atol=1e-6)
    assert second["held_out"] == first["held_out"]
    before, after = (load_file(run / "weights" / "model.safetensors") for run in (whole, resumed))
    for key, value in before.items():
        torch.testing.assert_close(after[key], value, rtol=0, atol=1e-6)


def test_a_run_may_start_from_earlier_weights(learned: Path, patterns: Path, tmp_path: Path) -> None:
    data, weights = f"folder:{patterns}", learned / "weights"
    short = {"steps": 3, "save_every": 3, "rate": 1e-9, "average": 0.0}
    again = train("vit", data, out=tmp_path / "again", tiny=True, init=str(weights), **short)
    figures = [json.loads((run / "metrics.json").read_text())["measured"] for run in (learned, again)]
    assert figures[0] == figures[1]
    with pytest.raises(TrainingError, match=r"nowhere: no card\.json there"):
        train("vit", data, out=tmp_path / "a", tiny=True, init=str(tmp_path / "nowhere"))
    with pytest.raises(TrainingError, match="is of other sizes than this run"):
        train("vit", data, out=tmp_path / "b", tiny=True, init=str(weights), dim=24)


def test_another_seed_is_another_run(short: Path, patterns: Path, tmp_path: Path) -> None:
    other = train("vit", f"folder:{patterns}", out=tmp_path / "run", tiny=True, seed=1, **SHORT)
    first, second = (json.loads((run / "metrics.json").read_text())["losses"] for run in (short, other))
    assert np.abs(np.subtract(first, second)).max() > 1e-3


def test_a_loss_that_is_not_finite_stops_the_run(
    patterns: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = vit.Recipe.training_step

    def broken(self: vit.Recipe, batch: dict, number: int) -> torch.Tensor:
        return step(self, batch, number) * (math.nan if self.global_step == 8 else 1.0)

    monkeypatch.setattr(vit.Recipe, "training_step", broken)
    with pytest.raises(TrainingError, match=r"not finite at step 9; the last good checkpoint is .*last\.ckpt"):
        train("vit", f"folder:{patterns}", out=tmp_path / "run", tiny=True, **SHORT)
    kept = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert kept["global_step"] == 5
    assert all(value.isfinite().all() for value in kept["state_dict"].values())


@pytest.fixture
def file_size() -> Iterator[Callable[[int], None]]:
    """Limits the size of files, so that a larger one breaks off as on a full disk; undone after the test."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("full", [5, 10])
def test_a_full_disk_is_one_line_and_keeps_the_last_checkpoint(
    full: int, patterns: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_size: Callable[[int], None]
) -> None:
    end, run, data = watch.Checkpoints.on_train_batch_end, tmp_path / "run", f"folder:{patterns}"

    def fills(self: watch.Checkpoints, trainer: Any, *given: Any) -> None:
        file_size(100_000 if trainer.global_step >= full else -1)
        end(self, trainer, *given)

    monkeypatch.setattr(watch.Checkpoints, "on_train_batch_end", fills)
    with pytest.raises(TrainingError, match=r"run: the disk is full .*; free some space, then resume") as caught:
        train("vit", data, out=run, tiny=True, **SHORT)
    assert "\n" not in str(caught.value)
    assert [file.name for file in (run / "checkpoints").iterdir()] == (["last.ckpt"] if full > 5 else [])
    monkeypatch.undo()
    file_size(-1)
    if full > 5:
        done = train(resume=run)
    else:
        with pytest.raises(TrainingError, match="cut off before its first checkpoint; start it again"):
            train(resume=run)
        done = train("vit", data, out=run, tiny=True, **SHORT)
    assert len(json.loads((done / "metrics.json").read_text())["losses"]) == 20


def test_a_disk_that_fills_at_the_very_end_loses_nothing(
    patterns: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_size: Callable[[int], None]
) -> None:
    step, write = vit.Recipe.training_step, recipes.write_results
    monkeypatch.setattr(recipes, "write_results", lambda *given: (file_size(20_000), write(*given)))
    with pytest.raises(TrainingError, match=r"run: the disk is full .*; free some space, then resume"):
        train("vit", f"folder:{patterns}", out=tmp_path / "run", tiny=True, **SHORT)
    file_size(-1)
    monkeypatch.undo()
    steps: list[int] = []
    monkeypatch.setattr(vit.Recipe, "training_step", lambda *given: steps.append(1) or step(*given))
    assert json.loads((train(resume=tmp_path / "run") / "metrics.json").read_text())["passes"] == 120
    assert not steps


@pytest.mark.parametrize("steps", [1, 12])
def test_ctrl_c_says_how_to_go_on(steps: int, patterns: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, step = [], vit.Recipe.training_step

    def stops(*given: Any) -> Any:
        made.append(1)
        if len(made) == steps:
            raise KeyboardInterrupt
        return step(*given)

    monkeypatch.setattr(vit.Recipe, "training_step", stops)
    told = "no checkpoint yet: start it again" if steps == 1 else "go on with `sightline train --resume"
    with pytest.raises(TrainingError, match=f"stopped; {told}") as stopped:
        train("vit", f"folder:{patterns}", out=tmp_path / "run", tiny=True, **SHORT)
    assert exit_code(stopped.value) == 130


def test_refusals(patterns: Path, learned: Path, tmp_path: Path) -> None:
    data = f"folder:{patterns}"
    with pytest.raises(TrainingError, match="holds a run already"):
        train("vit", data, out=learned, tiny=True)
    with pytest.raises(TrainingError, match="is complete"):
        train(resume=learned)
    with pytest.raises(TrainingError, match="holds no run to resume"):
        train(resume=tmp_path)
    with pytest.raises(ValueError, match=r"nowhere: no such folder"):
        train("vit", f"folder:{tmp_path / 'nowhere'}", out=tmp_path / "run", tiny=True)
    with pytest.raises(ValueError, match=r"no card\.json"):
        evaluate(tmp_path, data)


def test_an_unreadable_picture_in_the_middle_is_named_and_loses_nothing(
    short: Path, write_patterns: Write, tmp_path: Path
) -> None:
    root = write_patterns(tmp_path / "data")  # the pictures of `patterns`, which `short` has learned from
    data = open_labelled(f"folder:{root}", "train")
    number = int(Order(len(data), SHORT["batch"], seed=0)[12][3])  # read for step 13, after the checkpoint of step 10
    file = data.parts[0].files[number]
    picture = file.read_bytes()
    file.write_bytes(picture[:200])
    told = rf"sample {number} of folder:.* \(train\) cannot be read: .*{file.parent.name}/{file.name}: .*last\.ckpt$"
    with pytest.raises(TrainingError, match=told) as caught:
        train("vit", f"folder:{root}", out=tmp_path / "run", tiny=True, **SHORT)
    assert "\n" not in str(caught.value)
    file.write_bytes(picture)
    losses = [
        json.loads((run / "metrics.json").read_text())["losses"] for run in (short, train(resume=tmp_path / "run"))
    ]
    np.testing.assert_allclose(*losses, rtol=0, atol=1e-6)


def test_a_held_out_picture_that_cannot_be_read_is_named(write_patterns: Write, tmp_path: Path) -> None:
    root = write_patterns(tmp_path / "data", train=4, val=2)
    (root / "val" / "disc" / "001.png").write_bytes(b"not a picture")
    with pytest.raises(TrainingError, match=r"sample 3 of folder:.* \(val\) cannot be read: .*disc/001\.png"):
        train("vit", f"folder:{root}", out=tmp_path / "run", tiny=True, **SHORT)


def test_a_missing_column_is_named_before_anything_is_written(tmp_path: Path) -> None:
    rows = {"picture": [Image.new("RGB", (8, 8))] * 4, "caption": ["a", "b", "c", "d"]}
    table = datasets.Dataset.from_dict(
        rows, features=datasets.Features(picture=datasets.Image(), caption=datasets.Value("string"))
    )
    (tmp_path / "data").mkdir()
    table.to_parquet(tmp_path / "data" / "train-0.parquet")
    told = r"data: needs a column of images and one of class labels, found picture \(Image\), caption \(Value\)"
    with pytest.raises(ValueError, match=told):
        train("vit", f"hub:{tmp_path / 'data'}", out=tmp_path / "run", tiny=True)
    assert not (tmp_path / "run").exists()


def test_classes_must_agree(write_patterns: Write, learned: Path, tmp_path: Path) -> None:
    root = write_patterns(tmp_path / "data", train=2, val=2)
    (root / "val" / "disc").rename(root / "val" / "ring")
    with pytest.raises(TrainingError, match="train and val differ in the classes disc, ring"):
        train("vit", f"folder:{root}", out=tmp_path / "run", tiny=True, **SHORT)
    with pytest.raises(ValueError, match="do not know: ring"):
        evaluate(learned / "weights", f"folder:{root}")
