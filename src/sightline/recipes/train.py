"""Runs a recipe: `train` leaves a folder with weights, figures and pictures; `evaluate` measures weights."""

import errno
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import lightning
import torch
from safetensors import SafetensorError

from sightline.recipes.batches import Batches, Unreadable
from sightline.recipes.machines import check_machines, fitted, stop_others, trainer_options
from sightline.recipes.parts import Parts
from sightline.recipes.plan import ALONE, TrainingError, command_of, folder_of, is_first, new_plan, read_plan, recipe_of
from sightline.recipes.progress import Lines, Progress, quiet
from sightline.recipes.results import measured, write_results
from sightline.recipes.settings import Stopped
from sightline.recipes.watch import Checkpoints, Record
from sightline.recipes.weights import recipe_around, start_from
from sightline.recipes.within import paced

__all__ = ["TrainingError", "evaluate", "train"]


def train(
    system: str | None = None,
    data: str | None = None,
    *,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    tiny: bool = False,
    devices: int | None = None,
    nodes: int | None = None,
    strategy: str | None = None,
    **overrides: Any,
) -> Path:
    """Trains `system` on `data` and returns the run folder `out` (default: runs/SYSTEM).

    `data` is KIND:PATH, as the recipe's `open_data` reads it.  `overrides` are the recipe's settings (steps, batch …),
    the system's arguments (dim, depth …), `accumulate=K` (`recipes/parts.py`) or `within=SECONDS` (`within.py`).
    `resume=FOLDER` goes on as if it had not been cut off.  The folder holds `weights/` (config, safetensors, card),
    `metrics.json`, `curves.png`, `samples.png`, `command.txt`, `run.json`, `checkpoints/`.  `devices` and `nodes` share
    every batch (`recipes/machines.py`).  ValueError: unknown keys, bad data, a run there, full disk, loss not finite.
    """
    if resume is not None:
        folder, plan = Path(resume), read_plan(Path(resume), system, data, overrides)
    else:
        plan, folder = fitted(new_plan(system, data, tiny, overrides)), folder_of(system, out)
    given = {"devices": devices, "nodes": nodes, "strategy": strategy}
    plan["machines"] = plan.get("machines", ALONE) | {key: value for key, value in given.items() if value is not None}
    check_machines(plan["machines"], plan["settings"]["batch"], plan.get("accumulate", 1))
    try:
        with quiet():
            _run(plan, folder, resumed=resume is not None)
    except SystemExit as stopped:  # Lightning's word for Ctrl-C
        raise Stopped(folder) from stopped
    except (OSError, RuntimeError, SafetensorError) as error:
        if not is_full(error):
            raise
        full = f"the disk is full (or that of {tempfile.gettempdir()}, where a checkpoint is written first)"
        raise TrainingError(f"{folder}: {full}; free some space, then resume this run") from error
    return folder


def is_full(error: BaseException) -> bool:
    """Tells whether a write failed for want of space; safetensors and torch say so in words only."""
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return getattr(error, "errno", None) in codes or any(f"os error {code})" in str(error) for code in codes)


def _run(plan: dict[str, Any], folder: Path, *, resumed: bool) -> None:
    recipe_file = recipe_of(plan["system"])
    data, held = (recipe_file.open_data(plan["data"], split) for split in ("train", "val"))
    if hasattr(recipe_file, "agree"):
        try:
            recipe_file.agree(data, held)
        except ValueError as error:
            raise TrainingError(f"{plan['data']}: {error}") from error
    recipe = _made(recipe_file, plan, data, fresh=not resumed)
    batches = Batches(recipe_file, recipe, data, held, told=plan["data"])
    if is_first():
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        (folder / "run.json").write_text(json.dumps(plan, indent=1), encoding="utf-8")
        (folder / "command.txt").write_text(command_of(plan) + "\n", encoding="utf-8")
    record = Record(folder, recipe.settings, recipe_file.HELD)
    _fit(recipe, batches, record, plan, resumed)
    if not is_first():
        return
    plan["settings"]["steps"] = recipe.settings.steps
    if plan["machines"]["strategy"] == "fsdp":  # no process holds the whole network, but the checkpoint does
        recipe = _made(recipe_file, plan, data, fresh=False)
        recipe.load_state_dict(torch.load(record.last, map_location="cpu", weights_only=True)["state_dict"])
    write_results(folder, plan, recipe_file, recipe, record, held)


def _made(recipe_file: Any, plan: dict[str, Any], data: Any, *, fresh: bool) -> Any:
    settings = recipe_file.Settings(**plan["settings"])
    lightning.seed_everything(settings.seed, verbose=False)
    network = recipe_file.build(data, **plan["sizes"])
    recipe = recipe_file.Recipe(network, settings, data)
    if settings.init and fresh:
        start_from(recipe_file, recipe, data)
        recipe = recipe_file.Recipe(network, settings, data)  # what it copies of the network follows the weights
    return recipe


def _fit(recipe: Any, batches: Batches, record: Record, plan: dict[str, Any], resumed: bool) -> None:
    settings, machines, accumulate = recipe.settings, plan["machines"], plan.get("accumulate", 1)
    record.parts = Parts(recipe, accumulate * machines["devices"] * machines["nodes"])
    watched = [Progress() if sys.stderr.isatty() else Lines()] * is_first() + paced(recipe, plan.get("within", 0))
    trainer = lightning.Trainer(
        max_steps=settings.steps,
        precision=settings.precision,
        callbacks=[record.parts, record, *watched, Checkpoints(record.last, settings.save_every)],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
        gradient_clip_val=getattr(settings, "clip", 1.0),
        accumulate_grad_batches=accumulate,
        val_check_interval=max(1, settings.steps // getattr(settings, "checks", 5)) * accumulate,
        check_val_every_n_epoch=None,
        use_distributed_sampler=False,
        **trainer_options(machines, recipe),
    )
    try:
        trainer.fit(recipe, batches, ckpt_path=record.last if resumed else None, weights_only=True)
    except BaseException as error:
        stop_others(trainer)
        if isinstance(error, Unreadable):
            raise TrainingError(f"{error}; {record.standing()}") from error
        if isinstance(error, RuntimeError) and ("gloo" in str(error) or "NCCL" in str(error)):
            raise TrainingError(f"another process of this run failed, and told why; {record.standing()}") from error
        raise


def evaluate(weights: str | Path, data: str, *, split: str = "val") -> dict[str, Any]:
    """Measures saved weights (a folder with config, safetensors and card.json) on data, as their recipe does.

    Raises ValueError for a folder without a card, and what the recipe's reader and measure raise.
    """
    recipe_file, recipe = recipe_around(Path(weights))
    return measured(recipe_file, recipe, recipe_file.open_data(data, split))
