"""What looks after a run: its curve and random numbers, its checkpoints."""

import logging
import math
import time
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch import nn

from sightline.recipes.parts import Parts
from sightline.recipes.plan import TrainingError

log = logging.getLogger("sightline")


def ends_step(trainer: lightning.Trainer, number: int) -> bool:
    """Tells whether a part of a batch, by its number, is its batch's last, so that the network has moved."""
    return (number + 1) % trainer.accumulate_grad_batches == 0


class Record(lightning.Callback):
    """Keeps the loss of each step, seeds each step, and stops a run whose loss or gradient is not finite.

    All randomness of a step follows from (seed, step), and the rows are part of the checkpoint: a resumed run's
    curve has no gap and no double step.
    """

    def __init__(self, folder: Path, settings: Any, figure: str) -> None:
        self.last, self.settings, self.figure = folder / "checkpoints" / "last.ckpt", settings, figure
        self.parts: Parts | None = None
        self.losses: list[float] = []
        self.held: list[tuple[int, float]] = []
        self.seconds = 0.0
        self._clock, self._loss = 0.0, torch.tensor(0.0)

    @property
    def told(self) -> str:
        """The held-out figure's name as a person reads it."""
        return self.figure.removeprefix("val_").replace("_", " ")

    def standing(self) -> str:
        """Says where the last good checkpoint is."""
        return f"the last good checkpoint is {self.last}" if self.last.exists() else "there is no checkpoint yet"

    def state_dict(self) -> dict[str, Any]:
        return {"losses": self.losses, "held": [list(row) for row in self.held], "seconds": self.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.losses = list(state["losses"])
        self.held = [(int(step), float(value)) for step, value in state["held"]]
        self.seconds = float(state["seconds"])

    def on_train_start(self, trainer: lightning.Trainer, *ignored: Any) -> None:
        self._clock = time.monotonic()

    def on_train_batch_start(self, trainer: lightning.Trainer, recipe: Any, batch: Any, number: int) -> None:
        part = number % trainer.accumulate_grad_batches
        drawn = [self.settings.seed, trainer.global_step, trainer.global_rank, *([part] if part else [])]
        torch.manual_seed(int(np.random.SeedSequence(drawn).generate_state(1)[0]))

    def on_before_optimizer_step(
        self, trainer: lightning.Trainer, recipe: lightning.LightningModule, optimizer: Any
    ) -> None:
        # before the step, so that no bad number ever reaches the weights or a checkpoint
        size = nn.utils.get_total_norm([p.grad for p in recipe.parameters() if p.grad is not None])
        if math.isfinite(size):
            return
        raise TrainingError(
            f"loss or gradient is not finite at step {trainer.global_step + 1}; {self.standing()}; "
            f"try a rate below {self.settings.rate:g}"
        )

    def on_train_batch_end(
        self, trainer: lightning.Trainer, recipe: lightning.LightningModule, outputs: Any, batch: Any, number: int
    ) -> None:
        now = time.monotonic()
        self.seconds, self._clock = self.seconds + now - self._clock, now
        self._loss = outputs["loss"].detach() + (self._loss if number % trainer.accumulate_grad_batches else 0.0)
        if not ends_step(trainer, number):
            return
        # the mean over the processes, which is the loss of the whole batch
        mean = trainer.strategy.reduce(self._loss, reduce_op="mean")
        self.losses.append(float(mean * (self.parts.scale if self.parts else 1.0)))
        step, steps = trainer.global_step, self.settings.steps
        if step % max(1, steps // 100) == 0:
            recent = float(np.mean(self.losses[-50:]))
            log.info("step %d of %d: loss %.4f, %.0f s", step, steps, recent, self.seconds)

    def on_validation_end(self, trainer: lightning.Trainer, *ignored: Any) -> None:
        value = float(trainer.callback_metrics[self.figure])
        self.held.append((trainer.global_step, value))
        log.info("step %d: %s on held-out samples %.3f", trainer.global_step, self.told, value)


class Checkpoints(lightning.Callback):
    """Writes `last.ckpt` every `every` steps and at the end; the former one stays until the new one is whole.

    Stands last, so that what it saves is the state after everything else of the step.
    """

    def __init__(self, last: Path, every: int) -> None:
        self.last, self.every = last, every

    def on_train_batch_end(
        self, trainer: lightning.Trainer, recipe: Any, outputs: Any, batch: Any, number: int
    ) -> None:
        # where the held-out figure is taken now, that comes first: a resumed run would not take it again
        if ends_step(trainer, number) and (number + 1) % int(trainer.val_check_batch or 1):
            self._save(trainer)

    def on_validation_end(self, trainer: lightning.Trainer, *ignored: Any) -> None:
        self._save(trainer)

    def _save(self, trainer: lightning.Trainer) -> None:
        step = trainer.global_step
        if step % self.every and step != trainer.max_steps:
            return
        fresh = self.last.with_suffix(".new")
        try:
            trainer.save_checkpoint(fresh, weights_only=False)
        except OSError:
            fresh.unlink(missing_ok=True)  # a part of a checkpoint only takes space
            raise
        if trainer.is_global_zero:
            fresh.replace(self.last)
