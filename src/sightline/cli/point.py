"""`sightline point`: the box in each picture that a question or a name means."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sightline.cli.console import busy, hush_libraries
from sightline.cli.failures import Misuse
from sightline.cli.given import check_named
from sightline.cli.pictures import Batch, Made, Told, gather, not_why

if TYPE_CHECKING:
    from sightline.tasks.point import Pointed

SUFFIXES = (".point.json", ".point.png", ".point.html")


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
    from sightline.tasks.questions import WORDS, QuestionError, check_question, words_of

    candidates = parse_boxes(boxes) if boxes else None
    check_named(system, "answerer", WORDS)
    check_question(question, system)
    pictures, failures = gather(images)
    if candidates is not None and len(pictures) > 1:
        raise Misuse(
            f"--boxes are those of one picture, and {len(pictures)} pictures are named; point at one at a time"
        )
    batch = Batch("point", pictures, failures, out, as_json)
    if pictures:
        with busy(f"Opening {system} …", as_json):
            from sightline.systems.visual7w import Visual7WPointing
            from sightline.tasks.answerer import open_answerer
            from sightline.tasks.point import point as point_at

            hush_libraries()
            opened = open_answerer(system, (), words_of(question), Visual7WPointing)
        batch.answer_each(
            partial(point_at, question=question, boxes=candidates, system=opened),
            _told,
            asked={"question": question, "boxes": candidates, "system": system},
            # a system without attention has no page
            forms=(SUFFIXES if opened.model.kind == "attention" else SUFFIXES[:2],),
            doing="Pointing",
            about=" ".join(question.split()),  # another question has files of its own
            fatal=(QuestionError,),  # what is wrong with a question is wrong for every picture
        )
    batch.finish(question, sentence=_sentence, show=_show, close=_close)


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


def _told(meant: "Pointed", paths: tuple[Path, ...]) -> Told:
    return {
        "question": meant.asked,
        "box": list(meant.box),
        "probability": meant.probability,
        "rest": max(0.0, 1 - sum(share for _, share in meant.boxes)),
        "boxes": [{"box": list(box), "probability": share} for box, share in meant.boxes],
        "given": meant.given,
        "system": meant.system,
        "knows": meant.knows,
        "unknown": list(meant.unknown),
        "picture": str(paths[1]),
        "page": str(paths[2]) if len(paths) > 2 else None,
    }


def _sentence(told: Told) -> str:
    left, top, right, bottom = told["box"]
    return f"left {left:.0f}, top {top:.0f}, right {right:.0f}, bottom {bottom:.0f} ({told['probability']:.0%})"


def _show(made: Made) -> str:
    from sightline.tasks.point import LEAST, OTHERS, share_of
    from sightline.tasks.questions import undecided

    told = made.told
    lines = [f"{made.source.name}: {_sentence(told)}{'  (asked earlier)' if made.kept else ''}"]
    if told["unknown"]:
        lines.append(f"never read by {told['system']}: {', '.join(told['unknown'])}")
    if undecided([box["probability"] for box in told["boxes"]]):
        lines.append(f"nearly as likely: {_sentence(told['boxes'][1])}")
    others = [box["probability"] for box in told["boxes"][1:]]
    rest = sum(others[OTHERS:]) + told.get("rest", 0.0)  # an earlier version did not tell it
    named = [("", share) for share in others[:OTHERS]]
    named.append(("all others " if told["given"] else "all others, those that overlap these too, ", rest))
    shares = [f"{name}{share_of(share)}" for name, share in named if share >= LEAST]
    lines += [f"the next boxes: {'; '.join(shares)}"] if shares else []
    lines += [told[file] for file in ("picture", "page") if told[file]]
    return "\n  ".join(lines)


def _close(told: Told) -> str:
    by = f"{told['system']} knows {told['knows']}." if told["knows"] else f"Answered by {told['system']}."
    if told["page"] is None:  # without attention there are no maps to speak of
        return by
    # the score of a box is made of its own cells and of the question as read; the maps enter by the latter alone
    apart = "Its maps are of reading the question; the box is chosen by what each box holds: they do not explain it."
    return f"{by}\n{not_why(told)} {apart}"
