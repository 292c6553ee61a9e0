"""`sightline classify`: what a model calls each photograph."""

from functools import partial
from typing import Annotated

import typer

from sightline.cli.console import print_json
from sightline.cli.failures import Misuse, exit_with, shown, told_failures
from sightline.cli.given import check_named, learned_from
from sightline.cli.look import open_model
from sightline.cli.pictures import each, gather, remark_on


def classify(
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGE…", help="Files, folders (searched through) or 'patterns*'."),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="Bundled name, folder, weights file or hub id (owner/name).")
    ] = "vit",
    top: Annotated[int, typer.Option(min=1, help="How many classes to name.")] = 5,
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

    A model names only the classes it was trained on, whatever the photograph shows.
    """
    if not images and not sample:
        raise Misuse("classify needs at least one IMAGE (or --sample); see `sightline classify --help`")
    check_named(model, "model")
    photographs, failures = gather(images or [], sample)
    results = []
    remarks = remark_on(photographs, quiet=as_json)
    if photographs:
        opened = open_model(model, as_json)
        from sightline.tasks.classify import classify as name_classes

        naming = partial(name_classes, model=opened, top=top)
        for photograph, labels in each(photographs, naming, failures, doing="Classifying", quiet=as_json):
            named = [{"label": name, "probability": chance} for name, chance in labels]
            results.append({"image": str(photograph), "model": opened.name, "labels": named})
            if not as_json:
                typer.echo(f"{shown(str(photograph))}: {labels}")
        if results and not as_json and (data := learned_from(model)):
            count = len(opened.names or ())
            typer.echo(f"{model} names the likeliest of its {count} classes, whatever comes; it learned from {data}.")
    if as_json:
        print_json({"verb": "classify", "results": results, "remarks": remarks, "failures": told_failures(failures)})
    exit_with(failures)
