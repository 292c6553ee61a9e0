"""Ends a run after so many seconds with its schedules complete: the number of steps follows the pace."""

import time
from collections import deque
from dataclasses import replace
from typing import Any

import lightning

from sightline.recipes.plan import TrainingError
from sightline.recipes.watch import ends_step

EVERY, RECENT = 10, 100  # steps between estimates, and steps whose mean is the pace


def paced(recipe: Any, seconds: int) -> list[lightning.Callback]:
    """Gives what ends a run after so many seconds; nothing for 0."""
    return [Within(recipe, seconds)] if seconds else []


class Within(lightning.Callback):
    """Sets how many steps a run has, at most those it was given, so that it ends after `seconds` of training.

    The steps that the rest of the time allows are told anew every ten steps, from the mean of the last hundred, and
    put into `recipe.settings`, which the schedules of a recipe with `paced = True` read at each step.  The machine's
    pace decides, so that two such runs differ; the number of steps reached is written into the card.  Raises
    TrainingError for a recipe whose schedule is fixed at the start.
    """

    def __init__(self, recipe: Any, seconds: int) -> None:
        if not getattr(recipe, "paced", False):
            name = type(recipe).__module__.rpartition(".")[2]
            raise TrainingError(f"within={seconds}: {name} lays down its schedule at the start; give it steps=")
        self.seconds, self.most = seconds, recipe.settings.steps
        self.steps, self.spent, self._clock = self.most, 0.0, 0.0
        self.recent: deque[float] = deque(maxlen=RECENT)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "spent": self.spent}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps, self.spent = int(state["steps"]), float(state["spent"])

    def on_train_start(self, trainer: Any, recipe: Any) -> None:
        self._clock = time.monotonic()
        self._set(trainer, recipe)

    def on_train_batch_end(self, trainer: Any, recipe: Any, outputs: Any, batch: Any, number: int) -> None:
        if not ends_step(trainer, number):
            return
        now = time.monotonic()
        self.recent.append(now - self._clock)
        self.spent, self._clock = self.spent + self.recent[-1], now
        step = trainer.global_step
        if step % EVERY == 0 or step >= self.steps:
            pace = sum(self.recent) / len(self.recent)
            rest = max(0, int((self.seconds - self.spent) / pace))
            # all processes must stop at the same step: the first one's clock counts
            self.steps = int(trainer.strategy.broadcast(min(self.most, step + rest)))
            self._set(trainer, recipe)

    def _set(self, trainer: Any, recipe: Any) -> None:
        recipe.settings = replace(recipe.settings, steps=self.steps)
        trainer.fit_loop.epoch_loop.max_steps = self.steps
