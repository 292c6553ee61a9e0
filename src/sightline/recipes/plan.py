"""What a run will do, as plain values: recipe, data, settings and sizes, from keywords or from a run's folder."""

import dataclasses
import inspect
import json
import os
import shlex
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_type_hints

from sightline.recipes.settings import TrainingError, settled

# fmt: off
NAMES = (
    "vit", "vit_control", "ram", "ram_control", "ps_vit", "ps_vit_control", "show_and_tell", "show_attend_tell",
    "self_critical", "self_critical_control", "world_captions", "world_captions_control", "seq2seq", "transformer",
    "dino", "simclr", "moco", "infomin", "byol", "barlow_twins", "swav", "deepcluster", "obow", "supervised",
    "visual7w", "visual7w_pointing", "segmenter", "segmenter_hybrid",
)
# what is asked of a recipe (recipes/__init__.py says it); what it does not have itself its FRAME has
PARTS = (
    "Settings", "TINY", "TINY_SYSTEM", "HELD", "open_data", "build", "read_batch", "Recipe", "measure", "describe",
    "draw_samples", "order", "agree", "save_beside", "load_beside",
)
# fmt: on
ALONE = {"devices": 1, "nodes": 1, "strategy": "ddp"}


def check_name(system: str | None) -> None:
    """Raises TrainingError, listing the names, for one that is no recipe's."""
    if system not in NAMES:
        raise TrainingError(f"no recipe for {system!r}; there are: {', '.join(NAMES)}")


def recipe_of(system: str | None) -> Any:
    """Gives the recipe of a name, its own parts and those of its frame; TrainingError, listing the names, for another.

    The frame of `infomin` is `moco`, that of `moco` `self_supervised`, and so on; the first that has a part gives it.
    """
    check_name(system)
    module: Any = import_module(f"sightline.recipes.{system}")
    found: dict[str, Any] = {}
    while module is not None:
        found = {name: getattr(module, name) for name in PARTS if hasattr(module, name)} | found
        module = getattr(module, "FRAME", None)
    return SimpleNamespace(**found)


def new_plan(system: str | None, data: str | None, tiny: bool, overrides: dict[str, Any]) -> dict[str, Any]:
    """Gives the plan of a run: the recipe's own values, the tiny ones, then `overrides`.

    A key is a field of the recipe's `Settings`, an argument of the system, `accumulate`, the parts in which a batch is
    computed, or `within`, the seconds in which the run is to end (0: any); strings are converted.  Raises TrainingError
    for an unknown recipe or key, a value of another type, and settings below 1 where only 1 and more make sense.
    """
    recipe = recipe_of(system)
    if not data:
        raise TrainingError("no data given; expected KIND:PATH such as folder:photos")
    settings = dataclasses.asdict(recipe.Settings(**(recipe.TINY if tiny else {})))
    plan = settled(str(system), settings, dict(recipe.TINY_SYSTEM if tiny else {}), _arguments(recipe), overrides)
    return {"system": system, "data": data} | plan


def read_plan(folder: Path, system: str | None, data: str | None, overrides: dict[str, Any]) -> dict[str, Any]:
    """Reads the plan of a run that was cut off.

    Raises TrainingError for a folder without a run or without a checkpoint, a run that is complete, and for
    anything given that would change the run.
    """
    if not (folder / "run.json").is_file():
        raise TrainingError(f"{folder}: holds no run to resume (no run.json)")
    if (folder / "metrics.json").is_file():
        raise TrainingError(f"{folder}: this run is complete; its figures are in metrics.json")
    if not (folder / "checkpoints" / "last.ckpt").is_file():
        raise TrainingError(f"{folder}: this run was cut off before its first checkpoint; start it again")
    plan = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    if overrides or system not in (None, plan["system"]) or data not in (None, plan["data"]):
        raise TrainingError(
            f"{folder}: a resumed run goes on as it was, {plan['system']} on {plan['data']}; give no other"
        )
    return plan


def command_of(plan: dict[str, Any]) -> str:
    """Gives the shell command that repeats a run."""
    parts = {"accumulate": plan["accumulate"]} if plan.get("accumulate", 1) > 1 else {}
    parts |= {"within": plan["within"]} if "within" in plan else {}
    pairs = [shlex.quote(f"{key}={value}") for key, value in (plan["settings"] | plan["sizes"] | parts).items()]
    machines = [f"--{key} {value}" for key, value in plan.get("machines", {}).items() if value != ALONE[key]]
    return " ".join(["sightline train", plan["system"], "--data", repr(plan["data"]), *machines, *pairs])


def is_first() -> bool:
    """Tells whether this process is the one that writes; the others were started by it, by torchrun or by Slurm."""
    names = ("LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")
    return all(int(os.environ.get(name) or 0) == 0 for name in names)


def folder_of(system: str | None, out: str | Path | None) -> Path:
    """Gives the folder of a new run (default: runs/SYSTEM); TrainingError where a run or a file is there already."""
    folder = Path(out or Path("runs") / str(system))
    if folder.exists() and not folder.is_dir():
        raise TrainingError(f"{folder}: is a file; give another out, a folder that is made where there is none")
    if is_first() and any((folder / kept).exists() for kept in ("metrics.json", "checkpoints/last.ckpt")):
        raise TrainingError(f"{folder}: holds a run already; give another out, or resume it")
    return folder


def _arguments(recipe: Any) -> dict[str, Any]:
    """The sizes that may be given, with their defaults: keywords of the class that `build` gives, and its own."""
    system = get_type_hints(recipe.build)["return"]
    parameters = inspect.signature(system.__init__).parameters | inspect.signature(recipe.build).parameters
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    given = [p for p in parameters.values() if p.kind in named and p.name not in ("self", "data")]
    # where a pair may stand for a number, as in image_size=(256, 320), the default's kind would not say so
    return {p.name: None if "Sequence" in str(p.annotation) else p.default for p in given}
