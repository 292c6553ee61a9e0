"""What a terminal shows of a run: its progress, and nothing of what Lightning would say."""

import logging
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning

MOST_SILENT = 60.0  # seconds


class Progress(lightning.Callback):
    """Shows steps, loss and the time left on a terminal."""

    def on_train_start(self, trainer: lightning.Trainer, *ignored: Any) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Bar(*columns, transient=True)
        self.task = self.bar.add_task("Training", total=trainer.max_steps, completed=trainer.global_step)
        self.bar.start()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, recipe: lightning.LightningModule, outputs: Any, *ignored: Any
    ) -> None:
        told = f"Training, loss {float(outputs['loss']) * trainer.accumulate_grad_batches:.3f}"
        self.bar.update(self.task, completed=trainer.global_step, description=told)

    def on_train_end(self, *ignored: Any) -> None:
        self.bar.stop()

    def on_exception(self, *ignored: Any) -> None:
        if hasattr(self, "bar"):
            self.bar.stop()


class Lines(lightning.Callback):
    """Says on stderr how far a run is, in lines for a pipe or a log: at each tenth, and after MOST_SILENT seconds."""

    def on_train_start(self, trainer: lightning.Trainer, *ignored: Any) -> None:
        self.told, self.clock = _tenth(trainer), time.monotonic()
        _say(f"training, step {trainer.global_step:,} of {trainer.max_steps:,}")

    def on_train_batch_end(
        self, trainer: lightning.Trainer, recipe: lightning.LightningModule, outputs: Any, *ignored: Any
    ) -> None:
        tenth, now = _tenth(trainer), time.monotonic()
        if tenth == self.told and now - self.clock < MOST_SILENT:
            return
        self.told, self.clock = tenth, now
        share = trainer.global_step / max(1, trainer.max_steps)
        loss = float(outputs["loss"]) * trainer.accumulate_grad_batches
        _say(f"training, step {trainer.global_step:,} of {trainer.max_steps:,} ({share:.0%}), loss {loss:.3f}")

    def on_train_end(self, *ignored: Any) -> None:
        _say("trained; measuring on what was held out, and drawing …")


def _tenth(trainer: lightning.Trainer) -> int:
    return 10 * trainer.global_step // max(1, trainer.max_steps)


def _say(line: str) -> None:
    sys.stderr.write(f"sightline: {line}\n")
    sys.stderr.flush()


@contextmanager
def quiet() -> Iterator[None]:
    """Hides Lightning's advice on loggers, workers and resuming, none of which applies here."""
    names = ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
