"""`sightline ask`: the answer to a question about each picture, and where the model looked at each word."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sightline.cli.console import busy, hush_libraries
from sightline.cli.failures import Misuse
from sightline.cli.given import check_named
from sightline.cli.pictures import Batch, Made, Told, gather, not_why

if TYPE_CHECKING:
    from sightline.tasks.ask import Answer

SUFFIXES = (".ask.json", ".ask.png", ".ask.html")


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
    from sightline.tasks.questions import ANSWERERS, WORDS, QuestionError, check_question, words_of

    named = None if system == "auto" else system
    if named is not None:
        check_named(named, "answerer", WORDS)
    check_question(question, named)
    pictures, failures = gather(images)
    batch = Batch("ask", pictures, failures, out, as_json)
    if pictures:
        with busy(f"Opening {system} …", as_json):
            from sightline.tasks.answerer import open_answerer
            from sightline.tasks.ask import ask as answer

            hush_libraries()
            opened = open_answerer(named, ANSWERERS, words_of(question))
        offered = [one.strip() for one in choices.split(",")] if choices else None
        batch.answer_each(
            partial(answer, question=question, choices=offered, system=opened, beam=beam),
            _told,
            asked={"question": question, "choices": offered, "system": opened.name, "beam": beam},
            # a system without attention leaves its answer alone
            forms=(SUFFIXES if opened.model.kind == "attention" else SUFFIXES[:1],),
            doing="Asking",
            about=" ".join(question.split()),  # another question has files of its own
            fatal=(QuestionError,),  # what is wrong with a question is wrong for every picture
        )
    batch.finish(question, sentence=_sentence, show=_show, close=_close)


def _told(said: "Answer", paths: tuple[Path, ...]) -> Told:
    words = [{"word": word, "probability": p} for word, p in zip(said.words, said.probabilities, strict=True)]
    return {
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
    }


def _sentence(told: Told) -> str:
    return f"{told['answer'] or '(no answer)'} ({told['probability']:.0%})"


def _show(made: Made) -> str:
    told = made.told
    lines = [f"{made.source.name}: {_sentence(told)}{'  (asked earlier)' if made.kept else ''}"]
    if told["unknown"]:
        lines.append(f"never read by {told['system']}: {', '.join(told['unknown'])}")
    if told["picture"]:
        lines += [told["picture"], told["page"]]
    return "\n  ".join(lines)


def _close(told: Told) -> str:
    by = f"{told['system']} knows {told['knows']}." if told["knows"] else f"Answered by {told['system']}."
    if told["page"] is None:  # without attention there are no maps to speak of
        return by
    from sightline.data.question_words import beside_maps, question_words

    aside = beside_maps(question_words(told["question"]))
    return "\n".join([by, not_why(told), *([f"{aside[0].upper()}{aside[1:]}."] if aside else [])])
