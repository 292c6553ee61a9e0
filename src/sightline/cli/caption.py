"""`sightline caption`: what each photograph shows, and where the model looked for each word."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sightline.cli.console import busy, hush_libraries
from sightline.cli.failures import Misuse
from sightline.cli.given import check_named, learned_from
from sightline.cli.pictures import Batch, Made, Told, gather, not_why

if TYPE_CHECKING:
    from sightline.tasks.caption import Caption

SUFFIXES = (".caption.json", ".caption.png", ".caption.html")


def caption(
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGE…", help="Files, folders (searched through) or 'patterns*'."),
    ] = None,
    system: Annotated[
        str, typer.Option("--system", "-s", help="Bundled name, weights folder of a run, or hub id (owner/name).")
    ] = "show_attend_tell",
    beam: Annotated[int, typer.Option(min=1, help="Sentences kept at each word; 1 is greedy.")] = 5,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for pictures and pages.")] = Path("captions"),
    sample: Annotated[bool, typer.Option("--sample", help="Caption the photographs that come with sightline.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document, nothing else.")] = False,
) -> None:
    """Say what each photograph shows and, under each word, where the model looked.

    [bold]Examples[/bold]

    \b
      sightline caption photo.jpg
      sightline caption holiday/ --out told --json
      sightline caption --sample --system runs/mine/weights

    The bundled systems learned from 6,000 photographs of people and dogs; they say what is likely in such pictures, and
    often err on others.  Photographs that --out already holds, with the same settings, are not captioned again.
    """
    if not images and not sample:
        raise Misuse("caption needs at least one IMAGE (or --sample); see `sightline caption --help`")
    check_named(system, "captioner", "vocabulary.json")
    photographs, failures = gather(images or [], sample)
    batch = Batch("caption", photographs, failures, out, as_json)
    if photographs:
        with busy(f"Opening {system} …", as_json):
            from sightline.tasks.caption import caption as say
            from sightline.tasks.caption import open_captioner

            hush_libraries()
            opened = open_captioner(system)
        batch.answer_each(
            partial(say, system=opened, beam=beam),
            _told,
            asked={"system": system, "beam": beam},
            forms=(SUFFIXES, SUFFIXES[:1]),  # where it says nothing, or has no attention, nothing is drawn
            doing="Captioning",
        )
    batch.finish(
        f"What {system} says, and where it looked", sentence=_sentence, show=_show, close=partial(_close, system)
    )


def _told(said: "Caption", paths: tuple[Path, ...]) -> Told:
    words = [{"word": w, "probability": p} for w, p in zip(said.words, said.probabilities, strict=True)]
    drawn = {"picture": str(paths[1]), "page": str(paths[2])} if len(paths) > 1 else {"picture": None, "page": None}
    return {"text": said.text, "score": said.score, "words": words, **drawn}


def _sentence(told: Told) -> str:
    return str(told["text"])


def _show(made: Made) -> str:
    told = made.told
    files = f"\n  {told['picture']}\n  {told['page']}" if told["picture"] else ""
    return f"{made.source.name}: {_sentence(told)}{'  (captioned earlier)' if made.kept else ''}{files}"


def _close(system: str, told: Told) -> str:
    data = learned_from(system)
    limits = f"{system} says of every picture what is likely in those that it learned from ({data}).\n" if data else ""
    return f"{limits}{not_why(told)}"
