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
import torch
from safetensors.torch import load_model

from sightline.data.labelled import open_labelled
from sightline.recipes.batches import LabelledBatches
from sightline.recipes.plan import TrainingError, command_of, new_plan, read_plan, recipe_of, start_from
from sightline.recipes.results import measure, write_results
from sightline.recipes.watch import Checkpoints, Progress, Record

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

    `data` is KIND:PATH (see `sightline.data.labelled.open_labelled`).  `overrides` are the recipe's settings
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
    pictures, held = open_labelled(plan["data"], "train"), open_labelled(plan["data"], "val")
    if pictures.classes != held.classes:
        missing = sorted(set(pictures.classes) ^ set(held.classes))
        raise TrainingError(f"{plan['data']}: train and val differ in the classes {', '.join(missing[:5])}")
    lightning.seed_everything(settings.seed, verbose=False)
    network = recipe_file.build(len(pictures.classes), **plan["sizes"])
    if settings.init:
        start_from(network, settings.init, pictures.classes)
    side = network.image_size[0]
    recipe = recipe_file.Recipe(network, settings, side=side, classes=len(pictures.classes))
    batches = LabelledBatches(pictures, held, side=side, batch=settings.batch, steps=settings.steps, seed=settings.seed)
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(plan, indent=1), encoding="utf-8")
    (folder / "command.txt").write_text(command_of(plan) + "\n", encoding="utf-8")
    record = Record(folder, settings)
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
        gradient_clip_val=1.0,
        val_check_interval=max(1, settings.steps // 5),
        check_val_every_n_epoch=None,
    )
    trainer.fit(recipe, batches, ckpt_path=record.last if resumed else None, weights_only=True)
    write_results(folder, plan, recipe, record, held)


def evaluate(weights: str | Path, data: str, *, split: str = "val") -> dict[str, Any]:
    """Measures saved weights (a folder with config, safetensors and card.json) on labelled pictures.

    Gives what `sightline.recipes.results.measure` gives, among all of the weights' classes.  Raises ValueError for
    a folder without a card and for pictures of classes that the weights do not know.
    """
    folder = Path(weights)
    if not (folder / "card.json").is_file():
        raise ValueError(f"{folder}: no card.json; expected the `weights` folder of a run")
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    recipe_file, classes = recipe_of(card["system"]), tuple(card["classes"])
    network = recipe_file.build(**json.loads((folder / "config.json").read_text(encoding="utf-8")))
    load_model(network, str(folder / "model.safetensors"))
    recipe = recipe_file.Recipe(network, recipe_file.Settings(), side=network.image_size[0], classes=len(classes))
    pictures = open_labelled(data, split)
    unknown = sorted(set(pictures.classes) - set(classes))
    if unknown:
        raise ValueError(f"{data}: classes that these weights do not know: {', '.join(unknown)}")
    recipe.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    return measure(recipe, pictures, classes)


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
