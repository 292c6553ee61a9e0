"""`sightline glimpse`: the digit in each picture, and the path of the glimpses it was read through."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sightline.cli.console import busy, print_json, tracked
from sightline.cli.failures import Misuse, code_of, one_line
from sightline.cli.look import gather, report
from sightline.cli.outputs import OutputFolder, replaced_files, tell_replaced

if TYPE_CHECKING:
    from sightline.tasks.glimpse import Glimpsed

SUFFIXES = (".glimpse.json", ".glimpse.png", ".glimpse.gif", ".glimpse.html")


@dataclass(frozen=True)
class Made:
    """One picture's answer and its files; `told` is what --json prints of it."""

    source: Path
    told: dict[str, Any]
    kept: bool = False


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
    failures: list[tuple[str, BaseException]] = []
    pictures = gather(images, False, failures)
    results: list[Made] = []
    folder = OutputFolder(out) if pictures else None
    if folder is not None:
        with busy(f"Opening {system} …", as_json):
            from sightline.tasks.glimpse import open_ram

            opened = open_ram(system)[0]
        asked = {"system": system, "copies": copies, "seed": seed}
        for picture in tracked(pictures, "Glimpsing", quiet=as_json):
            try:
                results.append(_read(picture, opened, folder, asked))
            except (ValueError, OSError, RuntimeError, MemoryError) as error:
                report(failures, str(picture), error)
    index = _write_index(folder, results, system) if folder is not None and len(results) > 1 else None
    if as_json:
        told = [{"image": source, "error": one_line(error)} for source, error in failures]
        made = [result.told for result in results]
        files = {"index": index and str(index), "replaced": replaced_files(folder)}
        print_json({"verb": "glimpse", "results": made, **files, "failures": told})
    else:
        _print_person(results, index)
        tell_replaced(folder)
    if failures:
        raise typer.Exit(max(code_of(error) for _, error in failures))


def _read(picture: Path, opened: Any, folder: OutputFolder, asked: dict[str, Any]) -> Made:
    asked = asked | {"sha256": hashlib.sha256(picture.read_bytes()).hexdigest()}
    held = folder.held(picture, SUFFIXES)
    if held is not None:
        told = json.loads(held[0].read_text("utf-8"))
        if told.get("asked") == asked:
            return Made(picture, told, kept=True)
    from sightline.tasks.glimpse import glimpse as read_digit

    seen = read_digit(picture, system=opened, copies=asked["copies"], seed=asked["seed"])
    paths = held or folder.names(picture, SUFFIXES)
    told = _told(picture, seen, paths, asked)
    paths[0].write_text(json.dumps(told, ensure_ascii=False, indent=1) + "\n", "utf-8")
    for path in paths[1:]:
        seen.save(path)
    for path in paths:
        folder.wrote(path, picture)
    return Made(picture, told)


def _told(picture: Path, seen: "Glimpsed", paths: tuple[Path, ...], asked: dict[str, Any]) -> dict[str, Any]:
    steps = zip(seen.attention.places.tolist(), seen.attention.thoughts, strict=True)
    return {
        "image": str(picture),
        "label": seen.label,
        "probability": seen.probability,
        "labels": [{"label": name, "probability": chance} for name, chance in seen],
        "prepared": seen.prepared,
        "paths": {"copies": seen.copies, "agreeing": seen.agreeing},
        "glimpses": [{"x": x, "y": y, "thought": thought} for (x, y), thought in steps],
        "picture": str(paths[1]),
        "animation": str(paths[2]),
        "page": str(paths[3]),
        "asked": asked,
    }


def _sentence(told: dict[str, Any]) -> str:
    agreeing, copies = told["paths"]["agreeing"], told["paths"]["copies"]
    return f"{told['label']} ({told['probability']:.0%}, {agreeing} of {copies} paths)"


def _write_index(folder: OutputFolder, results: list[Made], system: str) -> Path | None:
    entries = [
        (made.source.name, Path(made.told["picture"]).name, Path(made.told["page"]).name, _sentence(made.told))
        for made in results
    ]
    return folder.index(f"What {system} reads, and through which glimpses", entries)


def _print_person(results: list[Made], index: Path | None) -> None:
    for made in results:
        typer.echo(f"{made.source.name}: {_sentence(made.told)}{'  (read earlier)' if made.kept else ''}")
        typer.echo(f"  canvas: {made.told['prepared']}")
        for file in ("picture", "animation", "page"):
            typer.echo(f"  {made.told[file]}")
    if index is not None:
        typer.echo(f"All together: {index}")
    if results:
        typer.echo("A path shows what was read, not why the answer is what it is.")
