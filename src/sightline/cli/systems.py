"""`sightline systems`: the weights that come with the package, and what they reached."""

from pathlib import Path
from typing import Annotated, Any

import typer

from sightline.cli.console import print_json, print_table


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
    columns = ("name", "system", "pixels", "classes", "trained on", "top-1", "chance", "size")
    print_table("Bundled systems", columns, [_row(card) for card in cards], right=columns[2:4] + columns[5:])
    typer.echo("Top-1 on pictures held out from training; --json gives the whole cards.")


def markdown_table(cards: list[dict[str, Any]]) -> str:
    """The README's table of systems: what each bundled weight reached, its control, chance, and its command."""
    lines = [
        "| system | paper | bundled weights | measured | control | chance | command |",
        "|---|---|---|---|---|---|---|",
    ]
    for card in cards:
        measured, control = card.get("measured", {}), card.get("control", {}).get("measured", {})
        lines.append(
            f"| [`{card['system']}`](src/sightline/systems/{card['system']}.py) | {card.get('paper', '')} | "
            f"{card['bytes'] / 1e6:.1f} MB, {card['image_size']} px | {_figures(measured)} | {_figures(control)} | "
            f"{measured.get('chance', 0):.1%} | `{card.get('command', '')}` |"
        )
    return "\n".join(lines)


def _figures(measured: dict[str, Any]) -> str:
    parts = [f"{p['top1']:.1%} ({p['pictures']:,} pictures, {p['classes']} classes)" for p in measured.get("parts", ())]
    return "top-1 " + ", ".join(parts) if parts else "-"


def _row(card: dict[str, Any]) -> list[str]:
    measured = card.get("measured", {})
    return [
        card["name"],
        str(card.get("system", "")),
        str(card.get("image_size", "")),
        str(len(card.get("classes", ()))),
        str(card.get("data", "")),
        f"{measured['top1']:.1%}" if "top1" in measured else "",
        f"{measured['chance']:.1%}" if "chance" in measured else "",
        f"{card['bytes'] / 1e6:.1f} MB",
    ]


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
