"""`sightline systems`: the weights that come with the package, and what they reached."""

from typing import Annotated, Any

import typer

from sightline.cli.console import print_json, print_table


def systems(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document, nothing else.")] = False,
) -> None:
    """List the systems whose weights come with sightline, with the figures they reached.

    [bold]Examples[/bold]

    \b
      sightline systems
      sightline systems --json
    """
    from importlib import import_module

    bundled = import_module("sightline.checkpoints.bundled")
    cards = [{"name": name, **bundled.card(name)} for name in bundled.names()]
    if as_json:
        print_json({"verb": "systems", "systems": cards})
        return
    rows = [
        [card["name"], *(_cell(card, key) for key in ("paper", "task", "data", "result", "bytes"))]
        for card in cards
    ]
    print_table(
        "Bundled systems", ("name", "paper", "task", "trained on", "reached", "size"), rows, right=("size",)
    )


def _cell(card: dict[str, Any], key: str) -> str:
    value = card.get(key)
    if value is None:
        return ""
    if key == "bytes":
        return f"{value / 1e6:.1f} MB"
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    return str(value)
