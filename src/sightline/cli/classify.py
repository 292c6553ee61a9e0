"""`sightline classify`: what a model calls each photograph, and where it looked."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sightline.cli.console import print_json
from sightline.cli.failures import Misuse, exit_with, shown, told_failures
from sightline.cli.given import check_model, check_named, learned_from
from sightline.cli.look import open_model
from sightline.cli.outputs import OutputFolder, replaced_files, tell_replaced
from sightline.cli.pictures import Told, each, gather, not_why, remark_on

if TYPE_CHECKING:
    from sightline.tasks.vision_model import VisionModel

SUFFIXES = (".classify.png", ".classify.html")


def classify(
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGE…", help="Files, folders (searched through) or 'patterns*'."),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="Bundled name, folder, weights file or hub id (owner/name).")
    ] = "vit",
    top: Annotated[int, typer.Option(min=1, help="How many classes to name.")] = 5,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for a picture and a page of where the model looked; none: no files."),
    ] = None,
    sample: Annotated[
        bool, typer.Option("--sample", help="Classify the photographs that come with sightline.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document, nothing else.")] = False,
) -> None:
    """Name what is in each photograph, with probabilities.

    [bold]Examples[/bold]

    \b
      sightline classify --sample
      sightline classify cat.jpg --top 3
      sightline classify photos/ --model google/vit-base-patch16-224 --json
      sightline classify cat.jpg --out classes

    A model names only the classes it was trained on, whatever the photograph shows.
    """
    if not images and not sample:
        raise Misuse("classify needs at least one IMAGE (or --sample); see `sightline classify --help`")
    check_named(model, "model")
    check_model(model, classes=True)
    photographs, failures = gather(images or [], sample)
    results: list[Told] = []
    remarks = remark_on(photographs, quiet=as_json)
    folder = OutputFolder(out) if out is not None and photographs else None
    index = None
    if photographs:
        opened = open_model(model, as_json)
        naming = partial(_name, opened=opened, top=top, folder=folder)
        for photograph, told in each(photographs, naming, failures, doing="Classifying", quiet=as_json):
            results.append(told)
            if not as_json:
                files = [told[file] for file in ("picture", "page") if told[file]]
                typer.echo("\n  ".join([f"{shown(str(photograph))}: {_sentence(told)}", *files]))
        if folder is not None and len(results) > 1:
            drawn = [
                (Path(told["image"]).name, Path(told["picture"]).name, Path(told["page"]).name) for told in results
            ]
            entries = [(*names, _sentence(told)) for names, told in zip(drawn, results, strict=True)]
            index = folder.index(f"What {opened.name} calls them", entries)
        if results and not as_json:
            _close(model, opened, folder, index)
    if as_json:
        document = {"verb": "classify", "results": results, "index": index and str(index)}
        rest = {"replaced": replaced_files(folder), "remarks": remarks, "failures": told_failures(failures)}
        print_json(document | rest)
    exit_with(failures)


def _name(photograph: Path, opened: "VisionModel", top: int, folder: OutputFolder | None) -> Told:
    """The classes of one photograph as plain values, and the files that were written of it, where there is a folder."""
    from sightline.tasks.classify import classify as name_classes

    named = name_classes(photograph, model=opened, top=top)
    labels = [{"label": name, "probability": chance} for name, chance in named]
    files: dict[str, str | None] = {"picture": None, "page": None}
    if folder is not None:
        seen = named.attention  # before a name is taken: a model without attention has none
        paths = folder.names(photograph, SUFFIXES)
        for path in paths:
            seen.save(path)
            folder.wrote(path, photograph)
        files = {"picture": str(paths[0]), "page": str(paths[1])}
    return {"image": str(photograph), "model": opened.name, "labels": labels, **files}


def _sentence(told: Told) -> str:
    from sightline.lens.sheet import spoken

    return ", ".join(f"{spoken(one['label'])} {one['probability']:.1%}" for one in told["labels"])


def _close(model: str, opened: "VisionModel", folder: OutputFolder | None, index: Path | None) -> None:
    """What holds of all results, for persons."""
    if index is not None:
        typer.echo(f"All together: {index}")
    tell_replaced(folder)
    if data := learned_from(model):
        count = len(opened.names or ())
        typer.echo(f"{model} names the likeliest of its {count} classes, whatever comes; it learned from {data}.")
    if folder is not None:
        typer.echo(not_why({}))
