"""`sightline systems`: the weights that come with the package, and what they reached."""

import sys
import textwrap
from pathlib import Path
from typing import Annotated, Any

import typer

from sightline.cli.console import print_json, print_table

WIDTH = 100


def systems(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document, nothing else.")] = False,
    markdown: Annotated[bool, typer.Option(help="Print the table of the README, generated from the cards.")] = False,
) -> None:
    """List the systems whose weights come with sightline, with the figures they reached.

    [bold]Examples[/bold]

    \b
      sightline systems
      sightline systems --json
      sightline systems --markdown
    """
    from sightline.checkpoints.bundled import bundled_card, bundled_folder, bundled_names

    cards = [{"name": name, **bundled_card(name), "bytes": _size(bundled_folder(name))} for name in bundled_names()]
    if as_json:
        print_json({"verb": "systems", "systems": cards})
        return
    if markdown:
        typer.echo(markdown_table(cards))
        return
    if not cards:
        typer.echo("No weights come with this build; give --model a folder or a hub id.")
        return
    if not sys.stdout.isatty():  # a table would be far wider than a page, in a pipe or a file
        typer.echo("\n\n".join(_block(card) for card in cards) + "\n")
        typer.echo("Measured on data held out from training; --json gives the whole cards, with commands and controls.")
        return
    columns = ("name", "system", "trained on", "reached", "chance", "size")
    print_table("Bundled systems", columns, [_row(card) for card in cards], right=columns[4:])
    typer.echo("Measured on data held out from training; --json gives the whole cards, with commands and controls.")


def markdown_table(cards: list[dict[str, Any]]) -> str:
    """The README's table of systems: what each bundled weight reached, its control and chance; then the commands."""
    lines = ["| system | paper | bundled weights | measured | control | chance |", "|---|---|---|---|---|---|"]
    for card in cards:
        lines.append(
            f"| [`{card['name']}`](src/sightline/systems/{card['system']}.py) | {card.get('paper', '')} | "
            f"{_what(card)} | {figure(card)} | {figure(card.get('control', {}))} | {_chance(card)} |"
        )
    lines += ["", "<details><summary>The commands that made them</summary>", ""]
    lines += [f"- `{card['name']}`: `{card.get('command', '')}`" for card in cards]
    return "\n".join([*lines, "", "</details>"])


def figure(card: dict[str, Any]) -> str:
    """What a card's weights reached, in words: its own `figure`, or accuracies made from what was measured."""
    if "figure" in card:
        return str(card["figure"])
    measured = card.get("measured", {})
    parts = [f"{p['top1']:.1%} ({p['pictures']:,} pictures, {p['classes']} classes)" for p in measured.get("parts", ())]
    return "top-1 " + ", ".join(parts) if parts else "-"


def _what(card: dict[str, Any]) -> str:
    size, side = f"{card['bytes'] / 1e6:.1f} MB", card.get("image_size")
    sides = " x ".join(str(one) for one in side) if isinstance(side, list) else side
    return f"{size}, {sides} px" if side else size


def _chance(card: dict[str, Any]) -> str:
    chance = card.get("measured", {}).get("chance")
    return "-" if chance is None else f"{chance:.1%}"


def _row(card: dict[str, Any]) -> list[str]:
    return [
        card["name"],
        str(card.get("system", "")),
        str(card.get("data", "")),
        figure(card),
        _chance(card),
        f"{card['bytes'] / 1e6:.1f} MB",
    ]


def _block(card: dict[str, Any]) -> str:
    """One card in lines of at most WIDTH columns, for where no terminal says how wide it is."""
    name, system, *rest = _row(card)
    told = dict(zip(("trained on", "reached", "chance", "size"), rest, strict=True))
    lines = [f"{name} ({system})" if name != system else name]
    for key, value in told.items():
        if value and value != "-":
            lines.append(textwrap.fill(f"{key}: {value}", WIDTH, initial_indent="  ", subsequent_indent="    "))
    return "\n".join(lines)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
