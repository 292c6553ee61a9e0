"""`sightline look`: a picture and a page of where a model looks, for each photograph."""

import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sightline.cli.console import busy, hush_libraries
from sightline.cli.failures import Misuse, exit_with, say
from sightline.cli.given import check_model, check_named, check_part
from sightline.cli.outputs import OutputFolder, tell_replaced
from sightline.cli.pictures import Batch, Made, Told, gather
from sightline.cli.wording import WrongOption, in_shell_words

if TYPE_CHECKING:
    from sightline.tasks.vision_model import VisionModel

SUFFIXES = (".look.png", ".look.html")
MOVING = ".look.gif"  # of models that move the points where they read


def look(
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGE…", help="Files, folders (searched through) or 'patterns*'."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Bundled name (default: dino if bundled, else vit), folder, weights file or hub id (owner/name).",
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="auto, raw, rollout, gradient (of the best class), grad_rollout, or threshold (each head's mask)."
        ),
    ] = "auto",
    layer: Annotated[int, typer.Option(help="Layer of raw, gradient and threshold; -1 is the last.")] = -1,
    head: Annotated[str, typer.Option(help="mean, max, min, or a head's number.")] = "mean",
    query: Annotated[
        str,
        typer.Option(help="Whose attention: auto, class, mean, a token's number, or ROW,COLUMN of a patch."),
    ] = "auto",
    mass: Annotated[float, typer.Option(help="Share of the attention that a mask of threshold holds.")] = 0.6,
    size: Annotated[
        int | None, typer.Option(help="Shorter side, in pixels, at which the whole picture is shown to the model.")
    ] = None,
    video: Annotated[
        Path | None,
        typer.Option(
            help="Take the pictures for frames, by name, and write one animation (.gif or .webp): into --out, unless a "
            "folder is named here."
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Also mask what was looked at: does the answer change?")
    ] = False,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the pictures and pages.")] = Path("looks"),
    sample: Annotated[bool, typer.Option("--sample", help="Look at the photographs that come with sightline.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document, nothing else.")] = False,
    limit: Annotated[str, typer.Option(help="Most memory that the recording may keep.")] = "1GiB",
) -> None:
    """See where a model looks: a picture and a self-contained page for each photograph.

    [bold]Examples[/bold]

    \b
      sightline look --sample
      sightline look cat.jpg --model google/vit-base-patch16-224
      sightline look holiday/ --method raw --layer 5 --head 3 --out looks
      sightline look cat.jpg --model vit --method gradient --check
      sightline look street.jpg --size 480 --method threshold --mass 0.5
      sightline look frames/ --video walk.gif --out looks
      sightline look 'photos/**/*.jpg' --query 4,7 --json

    A map shows where attention went, not why; --check measures what it did.
    """
    if not images and not sample:
        raise Misuse("look needs at least one IMAGE (or --sample); see `sightline look --help`")
    check_method(method, mass)
    if model is not None:
        check_named(model, "model")
        check_model(model)
    chosen = parse_head(head)
    check_part(layer, chosen, method, model)
    options: dict[str, Any] = {
        "method": method,
        "layer": layer,
        "head": chosen,
        "query": parse_query(query),
        "mass": mass,
        "size": size,
        "check": check,
        "limit": parse_bytes(limit),
        "command": shlex.join(["sightline", *sys.argv[1:]]),
    }
    photographs, failures = gather(images or [], sample)
    if video is not None:
        from sightline.cli.film import film

        film(photographs, video, model, options, failures, out, as_json)
        return
    batch = Batch("look", photographs, failures, out, as_json)
    index = None
    if batch.folder is not None:
        opened = open_model(model, as_json)
        looking = partial(_look_at, opened=opened, folder=batch.folder, options=options)
        doing = "Looking, and checking what was looked at" if check else "Looking"
        batch.make_each(looking, doing=doing, fatal=(WrongOption,))
        index = batch.index(f"Where {opened.name} looks", _sentence)
    if as_json:
        batch.print_json(index)
    else:
        _print_person(batch, index)
    exit_with(failures)


def open_model(name: str | None, quiet: bool) -> "VisionModel":
    """The model of `--model`, with a spinner while it loads and its note, if it has one, on stderr."""
    with busy(f"Opening {name or 'the bundled model'} …", quiet):
        from sightline.tasks.methods import usual_model
        from sightline.tasks.vision_model import open_vision_model

        hush_libraries()
        opened = open_vision_model(name or usual_model())
    if opened.note and not quiet:
        say(f"note: {opened.note}")
    return opened


def check_method(method: str, mass: float) -> None:
    """Raises `Misuse` for another --method than there is, and for a --mass that is no share."""
    from sightline.tasks.methods import check_choice

    try:
        check_choice(method, mass)
    except ValueError as error:
        raise Misuse(f"--{error}") from error


def parse_head(text: str) -> str | int:
    """``mean``, ``max``, ``min`` or a head's number."""
    if text.lstrip("-").isdigit():
        return int(text)
    if text not in ("mean", "max", "min"):
        raise Misuse(f"--head {text}: give mean, max, min or a number")
    return text


def parse_query(text: str) -> str | int | tuple[int, int] | None:
    """``auto`` (None: the class token, or the mean where there is none), a word, a token's number, or the
    ROW,COLUMN of a patch."""
    parts = [part.strip() for part in text.split(",")]
    if all(part.lstrip("-").isdigit() for part in parts) and len(parts) in (1, 2):
        numbers = [int(part) for part in parts]
        return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])
    if text not in ("auto", "class", "mean"):
        raise Misuse(f"--query {text}: give auto, class, mean, a token's number, or ROW,COLUMN of a patch")
    return None if text == "auto" else text


def parse_bytes(text: str) -> int:
    """A number of bytes such as ``800MB`` or ``2GiB``."""
    import re

    units = {"": 1, "b": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
    binary = {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?\s*", text.lower())
    factor = (units | binary).get(match[2]) if match else None
    if match is None or factor is None or float(match[1]) * factor < 1:
        raise Misuse(f"--limit {text}: give an amount of memory such as 500MB or 2GiB")
    return int(float(match[1]) * factor)


def _look_at(photograph: Path, opened: "VisionModel", folder: OutputFolder, options: dict[str, Any]) -> Made:
    from sightline.tasks.look import look as look_at

    try:
        seen = look_at(photograph, model=opened, **options)
    except (ValueError, RuntimeError) as error:
        raise in_shell_words(error) from error
    endings = (*SUFFIXES, MOVING) if hasattr(seen, "points") else SUFFIXES
    paths = folder.names(photograph, endings)
    for path in paths:
        seen.save(path)
        folder.wrote(path, photograph)
    files = dict(zip(("picture", "page", "animation"), map(str, paths), strict=False))
    return Made(photograph, {"image": str(photograph), **files, **seen.summary})


def _sentence(told: Told) -> str:
    return str(told["sentence"])


def _print_person(batch: Batch, index: Path | None) -> None:
    for made in batch.made:
        told = made.told
        typer.echo(f"{made.source.name}: {_sentence(told)}")
        if told["check"] is not None:
            typer.echo(f"  check: {told['check']['summary']}")
        for file in ("picture", "page", "animation"):
            if file in told:
                typer.echo(f"  {told[file]}")
    if index is not None:
        typer.echo(f"All together: {index}")
    tell_replaced(batch.folder)
    if batch.made:
        unchecked = any(made.told["check"] is None for made in batch.made)
        more = "; --check measures its effect." if unchecked else "."
        typer.echo(f"A map shows where attention went, not why{more}")
