"""A run that is given seconds instead of steps: it ends in time, its schedules end with it, and it can be resumed."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from sightline.recipes import within
from sightline.recipes.plan import TrainingError, command_of, new_plan, recipe_of
from sightline.recipes.schedules import cosine
from sightline.recipes.self_supervised import Common
from sightline.recipes.train import train
from sightline.recipes.within import Within


class Clock:
    """A machine on which step number n takes `pace(n)` seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


def run(monkeypatch: pytest.MonkeyPatch, pace: Any, seconds: int, most: int) -> tuple[float, list[int], Any]:
    clock = Clock()
    monkeypatch.setattr(within, "time", clock)
    monkeypatch.setattr(within, "ends_step", lambda trainer, number: True)
    recipe: Any = SimpleNamespace(settings=Common(steps=most), paced=True)
    trainer: Any = SimpleNamespace(
        global_step=0,
        accumulate_grad_batches=1,
        strategy=SimpleNamespace(broadcast=lambda value: value),
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(max_steps=most)),
    )
    callback, told = Within(recipe, seconds), []
    callback.on_train_start(trainer, recipe)
    while trainer.global_step < trainer.fit_loop.epoch_loop.max_steps:
        clock.now += pace(trainer.global_step)
        trainer.global_step += 1
        callback.on_train_batch_end(trainer, recipe, None, None, trainer.global_step - 1)
        told.append(recipe.settings.steps)
    return clock.now, told, trainer


@pytest.mark.parametrize(
    "pace",
    [
        lambda step: 0.2,
        lambda step: 5.0 if step == 0 else 0.1,  # the first step compiles kernels
        lambda step: 0.4 if step < 150 else 0.1,  # others leave the machine
        lambda step: 0.1 if step < 150 else 0.4,  # others come
    ],
)
def test_the_run_ends_in_time_and_its_schedule_with_it(monkeypatch: pytest.MonkeyPatch, pace: Any) -> None:
    seconds, told, trainer = run(monkeypatch, pace, seconds=100, most=10_000)
    assert 95 < seconds < 104
    assert told[-1] == trainer.global_step  # the steps that the schedule counts on are those that were made
    assert cosine(1.0, 0.0, told[-1], told[-1]) == pytest.approx(0, abs=1e-9)


def test_a_fast_machine_makes_the_steps_that_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds, told, _ = run(monkeypatch, lambda step: 0.01, seconds=100, most=300)
    assert seconds == pytest.approx(3)
    assert set(told) == {300}


def test_plan_and_command() -> None:
    plan = new_plan("dino", "folder:x", True, {"within": "90"})
    assert plan["within"] == 90
    assert command_of(plan).endswith("within=90")
    assert "within" not in new_plan("dino", "folder:x", True, {"within": "0"})
    with pytest.raises(TrainingError, match="expected int"):
        new_plan("dino", "folder:x", True, {"within": "soon"})


def test_schedules_laid_down_at_the_start_are_refused(patterns: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="within=9: vit lays down its schedule"):
        train("vit", f"folder:{patterns}", out=tmp_path / "run", tiny=True, within=9)


@pytest.mark.parametrize("name", ["seq2seq", "transformer"])
def test_the_rate_of_translators_follows_the_number_of_steps(name: str) -> None:
    recipe_file = recipe_of(name)
    recipe = recipe_file.Recipe(nn.Linear(2, 2), recipe_file.Settings(steps=100), None)
    share = recipe.configure_optimizers()["lr_scheduler"]["scheduler"].lr_lambdas[0]
    assert share(90) < 0.05
    recipe.settings = replace(recipe.settings, steps=1000)
    assert share(90) > 0.9
    assert share(990) < 0.01


@pytest.mark.usefixtures("no_drawings")
@pytest.mark.timeout(120)
def test_a_real_run_says_what_it_reached(patterns: Path, tmp_path: Path) -> None:
    spec = f"memory32:folder:{patterns}+memory32:photos:{patterns / 'val'}"
    folder = train("dino", spec, out=tmp_path / "run", tiny=True, steps=100_000, within=3, save_every=1000)
    card = json.loads((folder / "weights" / "card.json").read_text())
    losses = json.loads((folder / "metrics.json").read_text())["losses"]
    assert card["settings"]["steps"] == len(losses) < 100_000
    assert card["passes"] == 32 * len(losses)
    assert f"steps={len(losses)} " in card["command"]
    assert (folder / "checkpoints" / "last.ckpt").is_file()
