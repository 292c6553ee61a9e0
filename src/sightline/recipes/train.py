"""Runs a recipe: `train` leaves a folder with weights, figures and pictures; `evaluate` measures weights."""

import errno
import json
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning

from sightline.recipes.batches import Batches, Unreadable
from sightline.recipes.plan import TrainingError, command_of, new_plan, read_plan, recipe_of
from sightline.recipes.results import measured, write_results
from sightline.recipes.watch import Checkpoints, Progress, Record
from sightline.recipes.weights import recipe_around, start_from

__all__ = ["TrainingError", "evaluate", "train"]


def train(
    system: str | None = None,
    data: str | None = None,
    *,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    tiny: bool = False,
    **overrides: Any,
) -> Path:
    """Trains `system` on `data` and returns the run folder `out` (default: runs/SYSTEM).

    `data` is KIND:PATH, as the recipe's `open_data` reads it.  `overrides` are the recipe's settings
    (steps, batch, rate …) or arguments of the system (dim, depth …).  `resume=FOLDER` goes on from the last
    checkpoint of a run that was cut off, exactly as it would have gone on.  The folder holds `weights/` (config,
    safetensors, card), `metrics.json`, `curves.png`, `samples.png`, `command.txt`, `run.json`, `checkpoints/`.
    Raises ValueError, in one line, for an unknown recipe or key, bad data, a folder that holds a run, a loss that
    is not finite (the last good checkpoint stays) and a full disk.
    """
    if resume is not None:
        folder = Path(resume)
        plan = read_plan(folder, system, data, overrides)
    else:
        plan = new_plan(system, data, tiny, overrides)
        folder = Path(out or Path("runs") / str(system))
        if (folder / "run.json").exists():
            raise TrainingError(f"{folder}: holds a run already; give another out, or resume it")
    try:
        with _quiet():
            _run(plan, folder, resumed=resume is not None)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise TrainingError(f"{folder}: the disk is full; free some space, then resume this run") from error
        raise
    except SystemExit as stopped:  # Lightning turns Ctrl-C into this
        raise TrainingError(f"stopped; resume={folder} goes on from the last checkpoint") from stopped
    return folder


def _run(plan: dict[str, Any], folder: Path, *, resumed: bool) -> None:
    recipe_file = recipe_of(plan["system"])
    settings = recipe_file.Settings(**plan["settings"])
    data, held = (recipe_file.open_data(plan["data"], split) for split in ("train", "val"))
    if hasattr(recipe_file, "agree"):
        try:
            recipe_file.agree(data, held)
        except ValueError as error:
            raise TrainingError(f"{plan['data']}: {error}") from error
    lightning.seed_everything(settings.seed, verbose=False)
    network = recipe_file.build(data, **plan["sizes"])
    recipe = recipe_file.Recipe(network, settings, data)
    if settings.init and not resumed:
        start_from(recipe_file, recipe, data)
        recipe = recipe_file.Recipe(network, settings, data)  # what it copies of the network follows the weights
    batches = Batches(recipe_file, recipe, data, held, count=getattr(settings, "held", 1000))
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(plan, indent=1), encoding="utf-8")
    (folder / "command.txt").write_text(command_of(plan) + "\n", encoding="utf-8")
    record = Record(folder, settings, recipe_file.HELD)
    watchers = [record, *([Progress()] if sys.stderr.isatty() else [])]
    trainer = lightning.Trainer(
        max_steps=settings.steps,
        precision=settings.precision,
        callbacks=[*watchers, Checkpoints(record.last, settings.save_every)],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
        gradient_clip_val=getattr(settings, "clip", 1.0),
        val_check_interval=max(1, settings.steps // getattr(settings, "checks", 5)),
        check_val_every_n_epoch=None,
    )
    try:
        trainer.fit(recipe, batches, ckpt_path=record.last if resumed else None, weights_only=True)
    except Unreadable as error:
        raise TrainingError(f"{error}; {record.standing()}") from error
    write_results(folder, plan, recipe_file, recipe, record, held)


def evaluate(weights: str | Path, data: str, *, split: str = "val") -> dict[str, Any]:
    """Measures saved weights (a folder with config, safetensors and card.json) on data, as their recipe does.

    Raises ValueError for a folder without a card, and what the recipe's reader and measure raise.
    """
    recipe_file, recipe = recipe_around(Path(weights))
    return measured(recipe_file, recipe, recipe_file.open_data(data, split))


@contextmanager
def _quiet() -> Iterator[None]:
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
