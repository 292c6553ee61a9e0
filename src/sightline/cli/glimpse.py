"""`sightline glimpse`: the digit in each picture, and the path of the glimpses it was read through."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sightline.cli.console import busy
from sightline.cli.failures import Misuse
from sightline.cli.given import check_named, learned_from
from sightline.cli.pictures import Batch, Made, Told, gather

if TYPE_CHECKING:
    from sightline.tasks.glimpse import Glimpsed

SUFFIXES = (".glimpse.json", ".glimpse.png", ".glimpse.gif", ".glimpse.html")


def glimpse(
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGE…", help="Files, folders (searched through) or 'patterns*'."),
    ] = None,
    system: Annotated[
        str, typer.Option("--system", "-s", help="Bundled name, folder, weights file or hub id (owner/name).")
    ] = "ram",
    copies: Annotated[int, typer.Option(min=1, help="How many random paths the answer averages.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Of the random paths.")] = 0,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for pictures, animations and pages.")] = Path(
        "glimpses"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document, nothing else.")] = False,
) -> None:
    """Read the digit in each picture through a few glimpses, and draw their path.

    [bold]Examples[/bold]

    \b
      sightline glimpse digit.png
      sightline glimpse scans/ --out paths --json
      sightline glimpse page.jpg --system runs/ram --copies 20

    Any photograph or drawing of one digit will do; what was done to it is said with the answer.  Pictures that --out
    already holds, with the same settings, are not read again.
    """
    if not images:
        raise Misuse("glimpse needs at least one IMAGE; see `sightline glimpse --help`")
    check_named(system, "system that glimpses", begins="ram")
    pictures, failures = gather(images)
    batch = Batch("glimpse", pictures, failures, out, as_json)
    if pictures:
        with busy(f"Opening {system} …", as_json):
            from sightline.tasks.glimpse import glimpse as read_digit
            from sightline.tasks.glimpse import open_ram

            opened = open_ram(system)[0]
        batch.answer_each(
            partial(read_digit, system=opened, copies=copies, seed=seed),
            _told,
            asked={"system": system, "copies": copies, "seed": seed},
            forms=(SUFFIXES,),
            doing="Glimpsing",
        )
    batch.finish(
        f"What {system} reads, and through which glimpses",
        sentence=_sentence,
        show=_show,
        close=partial(_close, system),
    )


def _told(seen: "Glimpsed", paths: tuple[Path, ...]) -> Told:
    steps = zip(seen.attention.places.tolist(), seen.attention.thoughts, strict=True)
    return {
        "label": seen.label,
        "probability": seen.probability,
        "labels": [{"label": name, "probability": chance} for name, chance in seen],
        "prepared": seen.prepared,
        "paths": {"copies": seen.copies, "agreeing": seen.agreeing},
        "glimpses": [{"x": x, "y": y, "thought": thought} for (x, y), thought in steps],
        "picture": str(paths[1]),
        "animation": str(paths[2]),
        "page": str(paths[3]),
    }


def _sentence(told: Told) -> str:
    agreeing, copies = told["paths"]["agreeing"], told["paths"]["copies"]
    return f"{told['label']} ({told['probability']:.0%}, {agreeing} of {copies} paths)"


def _show(made: Made) -> str:
    told = made.told
    said = f"{made.source.name}: {_sentence(told)}{'  (read earlier)' if made.kept else ''}"
    return "\n  ".join([said, f"canvas: {told['prepared']}", told["picture"], told["animation"], told["page"]])


def _close(system: str, told: Told) -> str:
    data = learned_from(system)
    limits = f"{system} takes every picture for one of the digits that it learned from ({data}).\n" if data else ""
    return f"{limits}A path shows what was read, not why the answer is what it is."
