"""`sightline caption`: what each photograph shows, and where the model looked for each word."""

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
    from sightline.tasks.caption import Caption

SUFFIXES = (".caption.json", ".caption.png", ".caption.html")


@dataclass(frozen=True)
class Made:
    """One photograph's caption and its files; `told` is what --json prints of it."""

    source: Path
    told: dict[str, Any]
    kept: bool = False


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
    failures: list[tuple[str, BaseException]] = []
    photographs = gather(images or [], sample, failures)
    results: list[Made] = []
    folder = OutputFolder(out) if photographs else None
    if folder is not None:
        with busy(f"Opening {system} …", as_json):
            from sightline.tasks.caption import open_captioner

            hush_libraries()
            opened = open_captioner(system)
        asked = {"system": system, "beam": beam}
        for photograph in tracked(photographs, "Captioning", quiet=as_json):
            try:
                results.append(_caption(photograph, opened, folder, asked))
            except (ValueError, OSError, RuntimeError, MemoryError) as error:
                report(failures, str(photograph), error)
    index = _write_index(folder, results, system) if folder is not None and len(results) > 1 else None
    if as_json:
        told = [{"image": source, "error": one_line(error)} for source, error in failures]
        made = [result.told for result in results]
        files = {"index": index and str(index), "replaced": replaced_files(folder)}
        print_json({"verb": "caption", "results": made, **files, "failures": told})
    else:
        _print_person(results, index)
        tell_replaced(folder)
    if failures:
        raise typer.Exit(max(code_of(error) for _, error in failures))


def _caption(photograph: Path, opened: Any, folder: OutputFolder, asked: dict[str, Any]) -> Made:
    asked = asked | {"sha256": hashlib.sha256(photograph.read_bytes()).hexdigest()}
    held = folder.held(photograph, SUFFIXES)
    alone = None if held else folder.held(photograph, SUFFIXES[:1])  # a system without attention leaves no picture
    for files in (held, alone):
        told = json.loads(files[0].read_text("utf-8")) if files else {}
        if files and told.get("asked") == asked and (files is held or told["picture"] is None):
            return Made(photograph, told, kept=True)
    from sightline.tasks.caption import caption as say

    said = say(photograph, system=opened, beam=asked["beam"])
    suffixes = SUFFIXES if said.attention is not None else SUFFIXES[:1]
    mine = [files for files in (held, alone) if files and len(files) == len(suffixes)]
    paths = mine[0] if mine else folder.names(photograph, suffixes)
    told = _told(photograph, said, paths, asked)
    for path in paths[1:]:
        said.save(path)
        folder.wrote(path, photograph)
    # last, since its presence says that the others are complete
    paths[0].write_text(json.dumps(told, ensure_ascii=False, indent=1) + "\n", "utf-8")
    folder.wrote(paths[0], photograph)
    return Made(photograph, told)


def _told(photograph: Path, said: "Caption", paths: tuple[Path, ...], asked: dict[str, Any]) -> dict[str, Any]:
    words = [{"word": w, "probability": p} for w, p in zip(said.words, said.probabilities, strict=True)]
    drawn = {"picture": str(paths[1]), "page": str(paths[2])} if len(paths) > 1 else {"picture": None, "page": None}
    return {"image": str(photograph), "text": said.text, "score": said.score, "words": words, **drawn, "asked": asked}


def _write_index(folder: OutputFolder, results: list[Made], system: str) -> Path | None:
    entries = [
        (made.source.name, Path(made.told["picture"]).name, Path(made.told["page"]).name, made.told["text"])
        for made in results
        if made.told["picture"]
    ]
    return folder.index(f"What {system} says, and where it looked", entries)


def _print_person(results: list[Made], index: Path | None) -> None:
    for made in results:
        typer.echo(f"{made.source.name}: {made.told['text']}{'  (captioned earlier)' if made.kept else ''}")
        if made.told["picture"]:
            typer.echo(f"  {made.told['picture']}\n  {made.told['page']}")
    if index is not None:
        typer.echo(f"All together: {index}")
    if results:
        typer.echo("A map shows where attention went, not why.")
