"""`sightline train` and `sightline evaluate`: the shell of `sightline.recipes.train`."""

import ast
from pathlib import Path
from typing import Annotated, Any

import typer

from sightline.cli.console import hush_libraries, print_json
from sightline.cli.failures import Misuse

_SYSTEM = typer.Argument(metavar="SYSTEM", help="Which system, such as vit.")
_SETTINGS = typer.Argument(metavar="KEY=VALUE…", help="Settings of the recipe, such as epochs=20 lr=1e-3.")
_DATA = typer.Option(
    "--data", "-d", metavar="KIND:PATH", help="Kind of data and where it is, as in folder:photos."
)


def train(
    system: Annotated[str, _SYSTEM],
    settings: Annotated[list[str] | None, _SETTINGS] = None,
    data: Annotated[str | None, _DATA] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of this run.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this folder.")] = None,
    tiny: Annotated[
        bool, typer.Option("--tiny", help="A run of under a minute, to see that it learns.")
    ] = False,
) -> None:
    """Train a system on your data; the run's folder keeps weights, metrics, curves and the command.

    [bold]Examples[/bold]

    \b
      sightline train vit --tiny
      sightline train vit --data folder:photos/ epochs=30 lr=1e-3 --out runs/vit
      sightline train vit --data folder:photos/ --resume runs/vit
    """
    overrides = parse_settings(settings or [])
    check_data(data, needed=not tiny and resume is None)
    hush_libraries()
    from sightline.recipes.train import train as run_recipe

    folder = run_recipe(system, data, out=out, resume=resume, tiny=tiny, **overrides)
    typer.echo(f"The run is in {folder}.")


def evaluate(
    system: Annotated[str, typer.Argument(metavar="SYSTEM", help="A bundled name or the folder of a run.")],
    settings: Annotated[list[str] | None, _SETTINGS] = None,
    data: Annotated[str | None, _DATA] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document, nothing else.")] = False,
) -> None:
    """Measure a trained system on data, with the figures of its recipe.

    [bold]Examples[/bold]

    \b
      sightline evaluate runs/vit --data folder:photos/test
      sightline evaluate vit --data folder:photos/test --json
    """
    overrides = parse_settings(settings or [])
    check_data(data, needed=True)
    hush_libraries()
    from sightline.recipes.train import evaluate as run_evaluation

    figures = dict(run_evaluation(system, data, **overrides))
    if as_json:
        print_json({"verb": "evaluate", "system": system, "data": data, "metrics": figures})
        return
    for name, value in figures.items():
        typer.echo(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")


def parse_settings(given: list[str]) -> dict[str, Any]:
    """``key=value`` words as keyword arguments: numbers, booleans, None, lists and tuples as Python writes them."""
    settings: dict[str, Any] = {}
    words = {"true": True, "false": False, "none": None}
    for word in given:
        key, equals, value = word.partition("=")
        if not equals or not key.isidentifier():
            raise Misuse(f"{word!r}: settings are given as key=value, such as epochs=20")
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
