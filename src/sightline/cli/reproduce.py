"""`sightline reproduce`: the tables of papers, made again here by one command."""

from pathlib import Path
from typing import Annotated

import typer

from sightline.cli.console import hush_libraries, print_json, print_table
from sightline.cli.failures import Misuse
from sightline.cli.train import check_data

TABLES = ("ssl-table",)
_WHAT = typer.Argument(metavar="TABLE", help=f"Which table: {', '.join(TABLES)}.")
_DATA = typer.Option("--data", "-d", metavar="KIND:PATH", help="Labelled pictures, as in cifar10:PATH+folder:PATH.")
_BUDGET = typer.Option(help="How many pictures each run reads, with repetition.")
_ONLY = typer.Option(metavar="ROW", help="Only this row, such as simclr/resnet; may be given several times.")
_TABLE = typer.Option("--table", help="Train nothing: make the table of the rows that are there.")


def reproduce(
    what: Annotated[str, _WHAT],
    data: Annotated[str | None, _DATA] = None,
    budget: Annotated[int, _BUDGET] = 500_000,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the runs and the table.")] = Path("ssl-table"),
    only: Annotated[list[str] | None, _ONLY] = None,
    table: Annotated[bool, _TABLE] = False,
    small: Annotated[bool, typer.Option("--small", help="Small networks, for a CPU.")] = False,
    tiny: Annotated[bool, typer.Option("--tiny", help="Very small networks and measures, to see it work.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document, nothing else.")] = False,
) -> None:
    """Make a paper's table again, at the scale of this machine; rows that are done are kept.

    [bold]Examples[/bold]

    \b
      sightline reproduce ssl-table --data cifar10:CIFAR --small --budget 200000
      sightline reproduce ssl-table --data cifar10:CIFAR --only dino/vit --only byol/vit
      sightline reproduce ssl-table --table --out ssl-table

    ssl-table: DINO's table 2, all self-supervised methods on one frame; see docs/self-supervision.md.
    """
    if what not in TABLES:
        raise Misuse(f"no table {what!r}; there are: {', '.join(TABLES)}")
    if budget < 1:
        raise Misuse(f"--budget {budget}: give a number of pictures, 1 or more")
    check_data(data, needed=not table)
    from sightline.recipes.ssl_report import found_rows, write_report
    from sightline.recipes.ssl_rows import ROWS
    from sightline.recipes.ssl_table import run_row

    for name in only or []:
        if name not in ROWS:
            raise Misuse(f"no row {name!r} in {what}; there are: {', '.join(ROWS)}")
    scale = "tiny" if tiny else "small" if small else "full"
    if not table:
        hush_libraries()
        for name in only or ROWS:
            typer.echo(f"{name} …", err=True)
            run_row(name, str(data), out, budget=budget, scale=scale)
    rows = found_rows(out)
    written = write_report(rows, out)
    if as_json:
        print_json({"verb": "reproduce", "table": what, "rows": rows, "files": [str(path) for path in written]})
        return
    from sightline.recipes.ssl_report import cells, heads

    print_table(f"{what}, k-NN and linear accuracy in %", heads(rows), cells(rows), right=heads(rows)[2:])
    typer.echo(f"Table, figures and picture: {', '.join(str(path) for path in written)}.")
