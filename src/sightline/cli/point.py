"""`sightline point`: the box in each picture that a question or a name means."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sightline.cli.console import busy, hush_libraries, print_json, tracked
from sightline.cli.failures import Misuse, code_of, one_line
from sightline.cli.look import gather, report
from sightline.cli.outputs import OutputFolder, replaced_files, tell_replaced

if TYPE_CHECKING:
    from sightline.tasks.point import Pointed

SUFFIXES = (".point.json", ".point.png", ".point.html")


@dataclass(frozen=True)
class Made:
    """One picture's box and its files; `told` is what --json prints of it."""

    source: Path
    told: dict[str, Any]
    kept: bool = False


def point(
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGE…", help="Files, folders (searched through) or 'patterns*'."),
    ] = None,
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="Or a name, in quotes, after the pictures.")] = "",
    boxes: Annotated[
        str,
        typer.Option("--boxes", "-b", help="Candidates in pixels, 'left,top,right,bottom; …'; else windows are tried."),
    ] = "",
    system: Annotated[
        str, typer.Option("--system", "-s", help="Bundled name, weights folder of a run, or hub id (owner/name).")
    ] = "visual7w_pointing",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for pictures and pages.")] = Path("points"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document, nothing else.")] = False,
) -> None:
    """Point at what a question means in each picture.

    [bold]Examples[/bold]

    \b
      sightline point scene.png "the red cube"
      sightline point scene.png "which object is left of the blue sphere?" --json
      sightline point scene.png "the metal cube" --boxes "10,12,40,44; 60,20,90,52"

    The bundled system learned from scenes of the generated world alone (sightline scenes): spheres, cubes and
    cylinders.  In any other picture it points at what looks most like one.  Pictures that --out already holds, asked
    the same, are not asked again.
    """
    if not images or not question.strip():
        raise Misuse('point needs a picture and what to point at in quotes: sightline point scene.png "the red cube"')
    candidates = parse_boxes(boxes) if boxes else None
    failures: list[tuple[str, BaseException]] = []
    pictures = gather(images, False, failures)
    if candidates is not None and len(pictures) > 1:
        raise Misuse(
            f"--boxes are those of one picture, and {len(pictures)} pictures are named; point at one at a time"
        )
    results: list[Made] = []
    folder = OutputFolder(out) if pictures else None
    if folder is not None:
        with busy(f"Opening {system} …", as_json):
            from sightline.systems.visual7w import Visual7WPointing
            from sightline.tasks.answerer import QuestionError, open_answerer, words_of

            hush_libraries()
            opened = open_answerer(system, (), words_of(question), Visual7WPointing)
        asked = {"question": question, "boxes": candidates, "system": system}
        for picture in tracked(pictures, "Pointing", quiet=as_json):
            try:
                results.append(_point(picture, opened, folder, asked))
            except QuestionError:
                raise  # the question is at fault, and so it would be for every picture
            except (ValueError, OSError, RuntimeError, MemoryError) as error:
                report(failures, str(picture), error)
    index = _write_index(folder, results, question) if folder is not None and len(results) > 1 else None
    if as_json:
        told = [{"image": source, "error": one_line(error)} for source, error in failures]
        made = [result.told for result in results]
        files = {"index": index and str(index), "replaced": replaced_files(folder)}
        print_json({"verb": "point", "results": made, **files, "failures": told})
    else:
        _print_person(results, index)
        tell_replaced(folder)
    if failures:
        raise typer.Exit(max(code_of(error) for _, error in failures))


def parse_boxes(text: str) -> list[list[float]]:
    """Reads "left,top,right,bottom; left,top,right,bottom"; `Misuse` for anything else."""
    found = []
    for part in filter(None, (one.strip() for one in text.split(";"))):
        try:
            numbers = [float(value) for value in part.split(",")]
        except ValueError:
            numbers = []
        if len(numbers) != 4:
            raise Misuse(f"--boxes {part!r}: give left,top,right,bottom in pixels, boxes parted by semicolons")
        found.append(numbers)
    return found


def _point(picture: Path, opened: Any, folder: OutputFolder, asked: dict[str, Any]) -> Made:
    asked = asked | {"sha256": hashlib.sha256(picture.read_bytes()).hexdigest()}
    # a system without attention has no page
    suffixes = SUFFIXES if opened.model.kind == "attention" else SUFFIXES[:2]
    about = " ".join(asked["question"].split())  # another question has files of its own
    held = folder.held(picture, suffixes, about)
    if held is not None:
        told = json.loads(held[0].read_text("utf-8"))
        if told.get("asked") == asked:
            return Made(picture, told, kept=True)
    from sightline.tasks.point import point as point_at

    meant = point_at(picture, asked["question"], boxes=asked["boxes"], system=opened)
    paths = held or folder.names(picture, suffixes, about)
    told = _told(picture, meant, paths, asked)
    paths[0].write_text(json.dumps(told, ensure_ascii=False, indent=1) + "\n", "utf-8")
    for path in paths[1:]:
        meant.save(path)
    for path in paths:
        folder.wrote(path, picture, about)
    return Made(picture, told)


def _told(picture: Path, meant: "Pointed", paths: tuple[Path, ...], asked: dict[str, Any]) -> dict[str, Any]:
    return {
        "image": str(picture),
        "question": meant.asked,
        "box": list(meant.box),
        "probability": meant.probability,
        "boxes": [{"box": list(box), "probability": share} for box, share in meant.boxes],
        "given": meant.given,
        "system": meant.system,
        "knows": meant.knows,
        "unknown": list(meant.unknown),
        "picture": str(paths[1]),
        "page": str(paths[2]) if len(paths) > 2 else None,
        "asked": asked,
    }


def _sentence(told: dict[str, Any]) -> str:
    left, top, right, bottom = told["box"]
    return f"left {left:.0f}, top {top:.0f}, right {right:.0f}, bottom {bottom:.0f} ({told['probability']:.0%})"


def _write_index(folder: OutputFolder, results: list[Made], question: str) -> Path | None:
    entries = [
        (
            made.source.name,
            Path(made.told["picture"]).name,
            Path(made.told["page"] or made.told["picture"]).name,
            _sentence(made.told),
        )
        for made in results
    ]
    return folder.index(question, entries)


def _print_person(results: list[Made], index: Path | None) -> None:
    for made in results:
        typer.echo(f"{made.source.name}: {_sentence(made.told)}{'  (asked earlier)' if made.kept else ''}")
        if made.told["unknown"]:
            typer.echo(f"  never read by {made.told['system']}: {', '.join(made.told['unknown'])}")
        for file in ("picture", "page"):
            if made.told[file]:
                typer.echo(f"  {made.told[file]}")
    if index is not None:
        typer.echo(f"All together: {index}")
    if results:
        told = results[0].told
        typer.echo(f"{told['system']} knows {told['knows']}." if told["knows"] else f"Answered by {told['system']}.")
