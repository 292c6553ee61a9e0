"""`sightline ask`: the answer to a question about each picture, and where the model looked at each word."""

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
    from sightline.tasks.ask import Answer

SUFFIXES = (".ask.json", ".ask.png", ".ask.html")


@dataclass(frozen=True)
class Made:
    """One picture's answer and its files; `told` is what --json prints of it."""

    source: Path
    told: dict[str, Any]
    kept: bool = False


def ask(
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGE…", help="Files, folders (searched through) or 'patterns*'."),
    ] = None,
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="In quotes, after the pictures.")] = "",
    choices: Annotated[
        str, typer.Option("--choices", "-c", help="Answers to choose from, parted by commas; else one is written.")
    ] = "",
    system: Annotated[
        str,
        typer.Option("--system", "-s", help="auto, bundled name, weights folder of a run, or hub id (owner/name)."),
    ] = "auto",
    beam: Annotated[int, typer.Option(min=1, help="Answers kept at each word while writing; 1 is greedy.")] = 3,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for pictures and pages.")] = Path("answers"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document, nothing else.")] = False,
) -> None:
    """Answer a question about each picture and, under each word, show where the model looked.

    [bold]Examples[/bold]

    \b
      sightline ask scene.png "What colour is the cube?"
      sightline ask scene.png "How many spheres are there?" --choices one,two,three,four
      sightline ask rooms/ "what is on the table?" --out told --json

    The bundled visual7w learned from scenes of the generated world alone (sightline scenes): spheres, cubes and
    cylinders.  Of any other picture it says what was likely in those.  Where weights named visual7w_daquar are bundled
    too, auto takes the one that knows more of the question's words.  Pictures that --out already holds, asked the same,
    are not asked again.
    """
    if not images or not question.strip():
        raise Misuse('ask needs a picture and a question in quotes, as in: sightline ask photo.jpg "what is it?"')
    failures: list[tuple[str, BaseException]] = []
    pictures = gather(images, False, failures)
    results: list[Made] = []
    folder = OutputFolder(out) if pictures else None
    if folder is not None:
        with busy(f"Opening {system} …", as_json):
            from sightline.tasks.answerer import QuestionError, open_answerer, words_of
            from sightline.tasks.ask import CANDIDATES

            hush_libraries()
            opened = open_answerer(None if system == "auto" else system, CANDIDATES, words_of(question))
        offered = [one.strip() for one in choices.split(",")] if choices else None
        asked = {"question": question, "choices": offered, "system": opened.name, "beam": beam}
        for picture in tracked(pictures, "Asking", quiet=as_json):
            try:
                results.append(_ask(picture, opened, folder, asked))
            except QuestionError:
                raise  # the question is at fault, and so it would be for every picture
            except (ValueError, OSError, RuntimeError, MemoryError) as error:
                report(failures, str(picture), error)
    index = _write_index(folder, results, question) if folder is not None and len(results) > 1 else None
    if as_json:
        told = [{"image": source, "error": one_line(error)} for source, error in failures]
        made = [result.told for result in results]
        files = {"index": index and str(index), "replaced": replaced_files(folder)}
        print_json({"verb": "ask", "results": made, **files, "failures": told})
    else:
        _print_person(results, index)
        tell_replaced(folder)
    if failures:
        raise typer.Exit(max(code_of(error) for _, error in failures))


def _ask(picture: Path, opened: Any, folder: OutputFolder, asked: dict[str, Any]) -> Made:
    asked = asked | {"sha256": hashlib.sha256(picture.read_bytes()).hexdigest()}
    # a system without attention leaves its answer alone
    suffixes = SUFFIXES if opened.model.kind == "attention" else SUFFIXES[:1]
    about = " ".join(asked["question"].split())  # another question has files of its own
    held = folder.held(picture, suffixes, about)
    if held is not None:
        told = json.loads(held[0].read_text("utf-8"))
        if told.get("asked") == asked:
            return Made(picture, told, kept=True)
    from sightline.tasks.ask import ask as answer

    said = answer(picture, asked["question"], choices=asked["choices"], system=opened, beam=asked["beam"])
    paths = held or folder.names(picture, suffixes, about)
    told = _told(picture, said, paths, asked)
    paths[0].write_text(json.dumps(told, ensure_ascii=False, indent=1) + "\n", "utf-8")
    for path in paths[1:]:
        said.save(path)
    for path in paths:
        folder.wrote(path, picture, about)
    return Made(picture, told)


def _told(picture: Path, said: "Answer", paths: tuple[Path, ...], asked: dict[str, Any]) -> dict[str, Any]:
    words = [{"word": word, "probability": p} for word, p in zip(said.words, said.probabilities, strict=True)]
    return {
        "image": str(picture),
        "question": said.question,
        "answer": said.answer,
        "probability": said.probability,
        "words": words,
        "choices": [{"answer": text, "cost": cost} for text, cost in said.choices],
        "system": said.system,
        "knows": said.knows,
        "unknown": list(said.unknown),
        "picture": str(paths[1]) if len(paths) > 1 else None,
        "page": str(paths[2]) if len(paths) > 1 else None,
        "asked": asked,
    }


def _sentence(told: dict[str, Any]) -> str:
    return f"{told['answer'] or '(no answer)'} ({told['probability']:.0%})"


def _write_index(folder: OutputFolder, results: list[Made], question: str) -> Path | None:
    entries = [
        (made.source.name, Path(made.told["picture"]).name, Path(made.told["page"]).name, _sentence(made.told))
        for made in results
        if made.told["picture"]
    ]
    return folder.index(question, entries)


def _print_person(results: list[Made], index: Path | None) -> None:
    for made in results:
        typer.echo(f"{made.source.name}: {_sentence(made.told)}{'  (asked earlier)' if made.kept else ''}")
        if made.told["unknown"]:
            typer.echo(f"  never read by {made.told['system']}: {', '.join(made.told['unknown'])}")
        if made.told["picture"]:
            typer.echo(f"  {made.told['picture']}\n  {made.told['page']}")
    if index is not None:
        typer.echo(f"All together: {index}")
    if results:
        told = results[0].told
        typer.echo(f"{told['system']} knows {told['knows']}." if told["knows"] else f"Answered by {told['system']}.")
        typer.echo("A map shows where attention went, not why.")
