"""`sightline train` and `sightline evaluate`: the shell of `sightline.recipes.train`."""

import ast
import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from sightline.cli.console import busy, hush_libraries, print_json
from sightline.cli.failures import Misuse
from sightline.cli.given import weights_folder

_SYSTEM = typer.Argument(metavar="SYSTEM", help="Which system, such as vit.")
_SETTINGS = typer.Argument(metavar="KEY=VALUE…", help="Settings of the recipe, such as steps=20000 rate=1e-3.")
_WEIGHTS = typer.Argument(metavar="WEIGHTS", help="A bundled name, the folder of a run, or of its weights.")
_DEVICES = typer.Option(help="GPUs of each machine (processes, where there are none) that share every batch.")
_NODES = typer.Option(help="Machines; start the same command on each, by torchrun or Slurm.")
_STRATEGY = typer.Option(metavar="ddp|fsdp", help="Copies of the network, or one that is spread over all.")
_DATA = typer.Option(
    "--data",
    "-d",
    metavar="KIND:PATH",
    help="Kind of data and where it is, as in folder:photos, with photos/CLASS/*.jpg (every tenth is held back), or "
    "photos/train/CLASS/*.jpg and photos/val/CLASS/*.jpg.",
)
# by the system, or by the module that reads its data
_SHOWN = {
    "pictures": "look IMAGE --model",
    "segmentations": "segment IMAGE --system",
    "captions": "caption IMAGE --system",
    "world_captions": "caption IMAGE --system",
    "pairs": "translate SENTENCE --system",
    "answers": "ask IMAGE QUESTION --system",
    "visual7w_pointing": "point IMAGE NAME --system",
    "ram": "glimpse IMAGE --system",
}


def train(
    system: Annotated[str | None, _SYSTEM] = None,
    settings: Annotated[list[str] | None, _SETTINGS] = None,
    data: Annotated[str | None, _DATA] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of this run.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this folder.")] = None,
    tiny: Annotated[bool, typer.Option("--tiny", help="A run of under a minute, to see it learn.")] = False,
    devices: Annotated[int | None, _DEVICES] = None,
    nodes: Annotated[int | None, _NODES] = None,
    strategy: Annotated[str | None, _STRATEGY] = None,
) -> None:
    """Train a system on your data; the run's folder keeps weights, metrics, curves and the command.

    [bold]Examples[/bold]

    \b
      sightline train vit --data folder:photos/ --tiny
      sightline train vit --data folder:photos/ steps=20000 rate=1e-3 --out runs/vit
      sightline train vit --data folder:photos/ --devices 4 --strategy fsdp
      sightline train --resume runs/vit
    """
    if system is not None and "=" in system:  # the first word may already be a setting when a run is resumed
        settings = [system, *(settings or [])]
        system = None
    if system is None and resume is None:
        raise Misuse("train needs a SYSTEM, such as vit, or --resume FOLDER; see `sightline train --help`")
    overrides = parse_settings(settings or [])
    _check_run(system, data, resume, out, overrides)
    hush_libraries()
    # torch warns of a search for unused parameters that found none, in each process, on the terminal
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from sightline.recipes.plan import is_first
    from sightline.recipes.train import train as run_recipe

    given = {"devices": devices, "nodes": nodes, "strategy": strategy}
    overrides |= {key: value for key, value in given.items() if value is not None}
    folder = run_recipe(system, data, out=out, resume=resume, tiny=tiny, **overrides)
    if is_first():
        typer.echo(_result(folder))
        shown = _shown_by(folder)
        typer.echo(f"The run is in {folder}{f'; look through it with `sightline {shown} {folder}`' if shown else ''}.")


def evaluate(
    system: Annotated[
        str, typer.Argument(metavar="WEIGHTS", help="A bundled name, the folder of a run, or of its weights.")
    ],
    data: Annotated[str, _DATA],
    split: Annotated[str, typer.Option(help="Which part of the data: val or train.")] = "val",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document, nothing else.")] = False,
) -> None:
    """Measure trained weights on data, with the figures of their recipe and what chance would give.

    [bold]Examples[/bold]

    \b
      sightline evaluate vit --data folder:photos/
      sightline evaluate runs/vit --data folder:photos/
      sightline evaluate runs/vit/weights --data folder:photos/ --split train --json
    """
    folder = weights_of(system)
    check_data(data, needed=True)
    _check_measured(folder, data)
    hush_libraries()
    from sightline.recipes.train import evaluate as run_evaluation

    with busy(f"Measuring {system} …", quiet=as_json):
        figures = dict(run_evaluation(folder, data, split=split))
    if as_json:
        print_json({"verb": "evaluate", "system": system, "data": data, "split": split, "metrics": figures})
        return
    for line in told(figures):
        typer.echo(line)


def _check_run(
    system: str | None, data: str | None, resume: Path | None, out: Path | None, overrides: dict[str, Any]
) -> None:
    """Raises TrainingError or `Misuse` for a run that cannot be, before torch and Lightning are imported."""
    from sightline.recipes.known import check_plan
    from sightline.recipes.plan import folder_of, read_plan
    from sightline.recipes.sources import check_source

    if resume is not None:
        read_plan(resume, system, data, overrides)
    elif system is not None:
        check_plan(system, overrides)
        check_data(data, needed=True)
        check_source(system, str(data))
        folder_of(system, out)


def _shown_by(folder: Path) -> str:
    """The verb, and the words before the name of the weights, that shows what a run has learned; "" for a control."""
    from sightline.recipes.known import home_of

    system = json.loads((folder / "run.json").read_text("utf-8"))["system"]
    if system.endswith("_control"):  # a network of another kind, which no verb opens
        return ""
    try:
        return _SHOWN.get(system) or _SHOWN.get(home_of(system, "open_data"), _SHOWN["pictures"])
    except (OSError, LookupError):  # the package's own source is not at hand
        return _SHOWN["pictures"]


def _result(folder: Path) -> str:
    """The figures of a run in one line; what they consist of is in its metrics.json."""
    measured = json.loads((folder / "metrics.json").read_text("utf-8"))["measured"]
    single = [f"{name} {_written(value)}" for name, value in measured.items() if isinstance(value, int | float)]
    blind = measured.get("blind")  # what a pixel's place alone tells
    beside = [f"{name} {_written(value)}" for name, value in blind.items()] if isinstance(blind, dict) else []
    told = f" (blind: {', '.join(beside)})" if beside else ""
    return f"Measured on what was held out: {', '.join(single)}{told}."


def _check_measured(folder: Path, data: str) -> None:
    """Raises TrainingError for data that the recipe of these weights does not take, as far as their card names one."""
    from sightline.recipes.plan import NAMES
    from sightline.recipes.sources import check_source

    try:
        card = json.loads((folder / "card.json").read_text("utf-8"))
        recipe = card.get("recipe", card["system"])
    except (OSError, ValueError, LookupError, AttributeError):  # `evaluate` says what is wrong with such weights
        return
    if recipe in NAMES:
        check_source(recipe, data)


def weights_of(system: str) -> Path:
    """The folder of weights that `weights_folder` finds; `Misuse` where there is none."""
    folder = weights_folder(system)
    if folder is not None:
        return folder
    from sightline.checkpoints.bundled import bundled_names

    raise Misuse(
        f"{system}: no such folder and no bundled weights; give the folder of a run (see `sightline train --help`) "
        f"or one of {', '.join(bundled_names())}"
    )


def told(figures: dict[str, Any], indent: str = "") -> list[str]:
    """Nested figures as lines for a person: one a value, nested ones set in."""
    lines = []
    for name, value in figures.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}:", *told(value, indent + "  ")]
        elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            for item in value:
                lines += [f"{indent}{name}:", *told(item, indent + "  ")]
        else:
            lines.append(f"{indent}{name}: {_written(value)}")
    return lines


def _written(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def parse_settings(given: list[str]) -> dict[str, Any]:
    """``key=value`` words as keyword arguments: numbers, booleans, None, lists and tuples as Python writes
    them."""
    settings: dict[str, Any] = {}
    words = {"true": True, "false": False, "none": None}
    for word in given:
        key, equals, value = word.partition("=")
        if not equals or not key.isidentifier():
            raise Misuse(f"{word!r}: settings are given as key=value, such as steps=20000")
        if key in settings:
            raise Misuse(f"{key!r} is given twice")
        try:
            settings[key] = words[value.lower()] if value.lower() in words else ast.literal_eval(value)
        except (ValueError, SyntaxError):
            settings[key] = value  # anything that is no literal is a plain word, such as a path or a name
    return settings


def check_data(data: str | None, needed: bool) -> None:
    """Raise ``Misuse`` unless data is given as KIND:PATH, or left out where it may be."""
    if data is None and not needed:
        return
    kind, colon, path = (data or "").partition(":")
    if not (colon and kind and path):
        told = "missing" if data is None else data
        raise Misuse(f"--data {told}: give KIND:PATH, such as folder:photos/")
