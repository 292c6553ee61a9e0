"""`sightline survey`: where a model has attention, and what recording it would keep."""

from typing import Annotated

import typer

from sightline.cli.console import busy, print_json, print_table
from sightline.cli.given import check_model, check_named
from sightline.cli.look import open_model


def survey(
    image: Annotated[
        str | None,
        typer.Argument(metavar="IMAGE", help="A photograph; left out, a sample photograph is used."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Bundled name (default: dino if bundled, else vit, as of look), folder, weights file or hub id.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document, nothing else.")] = False,
) -> None:
    """List a model's attention sites, their shapes, and the memory that each choice of rows would keep.

    The model runs once and nothing is kept: do this before recording something large.

    [bold]Examples[/bold]

    \b
      sightline survey
      sightline survey cat.jpg --model facebook/dinov2-small
      sightline survey --model runs/vit --json
    """
    from sightline.data.photographs import open_photograph, sample_photographs

    if model is not None:
        check_named(model, "model")
        check_model(model)
    photograph = open_photograph(image if image is not None else sample_photographs()[0])
    opened = open_model(model, as_json)
    with busy("Running the model once …", as_json):
        from sightline.lens import survey as run_survey
        from sightline.tasks.look import like_parameters

        pixels, _ = opened.prepare(photograph)
        seen = run_survey(opened.model, like_parameters(pixels, opened.model))
    if as_json:
        shape = list(pixels.shape)
        print_json(
            {
                "verb": "survey",
                "model": opened.name,
                "pixels": shape,
                "sites": seen.rows(),
                "bytes": seen.costs(),
            }
        )
        return
    choices = list(seen.costs())
    rows = [
        [
            str(site["site"]),
            str(site["kind"]),
            str(site["heads"]),
            f"{site['queries']} x {site['keys']}",
            *(_amount(site["bytes"][choice]) for choice in choices),
        ]
        for site in seen.rows()
    ]
    rows.append(["all sites", "", "", "", *(_amount(seen.costs()[choice]) for choice in choices)])
    columns = ("site", "kind", "heads", "queries x keys", *choices)
    print_table(f"{opened.name}: {len(seen)} attention sites", columns, rows, right=columns[2:])
    typer.echo("Bytes kept for one query row a site, for all rows, and by whole matrices (eager attention).")


def _amount(size: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} B"
