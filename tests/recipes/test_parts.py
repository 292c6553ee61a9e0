"""A batch in parts does what the whole batch does: the same losses, held-out figures and weights."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from sightline.data.transduction import Transduction
from sightline.recipes import augment, seq2seq
from sightline.recipes.machines import check_machines
from sightline.recipes.pairs import Pairs
from sightline.recipes.parts import Parts
from sightline.recipes.plan import TrainingError, command_of, new_plan
from sightline.recipes.train import train

pytestmark = pytest.mark.usefixtures("no_drawings")

# a small rate, since Adam divides the rounding errors of a vanishing gradient by themselves; nothing drawn at random
VIT = {"steps": 6, "batch": 12, "save_every": 4, "mix": 0, "rate": 1e-4}
WORDS = {"steps": 6, "batch": 12, "save_every": 3, "rate": 1e-4}


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augment, "crop_and_flip", lambda images, side: F.interpolate(images, side))
    for name in ("jitter_colours", "soften_some"):
        monkeypatch.setattr(augment, name, lambda images: images)


@pytest.fixture
def translating(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    def few(spec: str, split: str) -> Pairs:
        made = Transduction("reverse", 48 if split == "train" else 8, shortest=2, longest=9, seed=len(split))
        return Pairs(made.source, made.target)

    monkeypatch.setattr(seq2seq, "open_data", few, raising=False)

    def run(name: str, **given: Any) -> Path:
        return train("seq2seq", "transduction:reverse", out=tmp_path / name, tiny=True, **WORDS | given)

    return run


def left(run: Path) -> tuple[dict, dict]:
    return json.loads((run / "metrics.json").read_text()), load_file(run / "weights" / "model.safetensors")


def furthest(first: Path, second: Path) -> float:
    # a bias of the keys moves every score of a row alike, so its true gradient is zero and its own value means nothing
    ours, theirs = left(first)[1], left(second)[1]
    return max((value - theirs[key]).abs().max().item() for key, value in ours.items() if "key.bias" not in key)


def assert_same(first: Path, second: Path) -> None:
    ours, theirs = left(first)[0], left(second)[0]
    np.testing.assert_allclose(ours["losses"], theirs["losses"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(ours["held_out"], theirs["held_out"], rtol=0, atol=1e-6)
    assert furthest(first, second) < 1e-6


@pytest.mark.usefixtures("plain")
def test_parts_are_the_whole(patterns: Path, tmp_path: Path) -> None:
    data = f"folder:{patterns}"
    whole, parts, less = (
        train("vit", data, out=tmp_path / name, tiny=True, **VIT | given)
        for name, given in {"whole": {}, "parts": {"accumulate": "4"}, "less": {"batch": 3}}.items()
    )
    assert_same(whole, parts)
    assert furthest(whole, less) > 2e-5
    assert left(parts)[0]["passes"] == 6 * 12
    assert "accumulate=4" in (parts / "command.txt").read_text()


def test_parts_weigh_as_much_as_they_count(translating: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = translating("whole")
    assert_same(whole, translating("parts", accumulate=3))
    monkeypatch.setattr(Parts, "_weighed", lambda parts, step: step)  # a mean of means is something else
    assert furthest(whole, translating("means", accumulate=3)) > 1e-5


def test_a_run_in_parts_that_is_cut_off_goes_on(
    translating: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, step = translating("whole", accumulate=3, dropout=0.3), seq2seq.Recipe.training_step

    def cut_off(self: seq2seq.Recipe, batch: dict, number: int) -> Any:
        if self.global_step == 4 and number % 3 == 1:  # between the parts of a batch
            raise RuntimeError("power cut")
        return step(self, batch, number)

    with monkeypatch.context() as patched:
        patched.setattr(seq2seq.Recipe, "training_step", cut_off)
        with pytest.raises(RuntimeError, match="power cut"):
            translating("cut", accumulate=3, dropout=0.3)
    torch.manual_seed(99)
    with pytest.raises(TrainingError, match="a resumed run goes on as it was"):
        train(resume=tmp_path / "cut", accumulate=2)
    assert_same(whole, train(resume=tmp_path / "cut"))
    assert len(left(whole)[0]["losses"]) == 6


def test_each_part_draws_its_own_numbers(translating: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[float] = []
    step = seq2seq.Recipe.training_step

    def draws(self: seq2seq.Recipe, batch: dict, number: int) -> Any:
        drawn.append(float(torch.rand(())))
        return step(self, batch, number)

    monkeypatch.setattr(seq2seq.Recipe, "training_step", draws)
    translating("drawn", accumulate=3)
    assert len(set(drawn)) == len(drawn) == 18


def test_batches_that_make_no_equal_parts_are_refused(tmp_path: Path) -> None:
    told = "batch=12 cannot be shared evenly in accumulate=5 parts; give a multiple of 5"
    with pytest.raises(TrainingError, match=told):
        train("seq2seq", "transduction:reverse", out=tmp_path / "run", tiny=True, batch=12, accumulate=5)
    assert not (tmp_path / "run").exists()
    alone = {"devices": 2, "nodes": 1, "strategy": "ddp"}
    told = "batch=12 cannot be shared evenly by 2 processes in accumulate=4 parts; give a multiple of 8"
    with pytest.raises(TrainingError, match=told):
        check_machines(alone, 12, 4)
    for given, told in {"0": "expected 1 or more", "2.5": "expected int", "many": "expected int"}.items():
        with pytest.raises(TrainingError, match=f"accumulate='?{given}'?: {told}"):
            new_plan("vit", "folder:x", False, {"accumulate": given})
    assert "accumulate" not in command_of(new_plan("vit", "folder:x", False, {}))
