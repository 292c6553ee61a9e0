"""`sightline scenes`: data sets of the generated world, in the field's own file formats."""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sightline.cli.console import print_json
from sightline.cli.failures import Misuse, one_line

if TYPE_CHECKING:
    from sightline.data.scenes import Scenes

_TASKS = (
    "captions", "clevr", "telling", "pointing", "changes", "multi-changes", "dialogues", "edits", "queries", "prompts",
)  # fmt: skip
_SPLIT = typer.Option(help="train, val, test; -combinations, -kinds or -all behind it changes what is held out.")
_OBJECTS = typer.Option(metavar="LEAST-MOST", help="How many things in a scene (3-6; pointing: 4-7).")


def scenes(
    task: Annotated[str | None, typer.Argument(metavar="TASK", help=", ".join(_TASKS))] = None,
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="How many scenes.")] = 1000,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder to write to.")] = None,
    size: Annotated[str, typer.Option(help="Side in pixels, or HEIGHTxWIDTH, as in 320x480.")] = "64",
    seed: Annotated[int, typer.Option(help="Which world; the same seed gives the same files.")] = 0,
    split: Annotated[str, _SPLIT] = "train",
    objects: Annotated[str | None, _OBJECTS] = None,
    arrow: Annotated[bool, typer.Option("--arrow", help="Write a data set of the `datasets` library instead.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document, nothing else.")] = False,
) -> None:
    """Make a data set of small CLEVR-like scenes with the truth about them.

    [bold]Examples[/bold]

    \b
      sightline scenes captions --n 5000 --out world/              COCO captions and instances
      sightline scenes clevr --n 100 --size 320x480 --out clevr/   CLEVR scenes and questions
      sightline scenes telling --n 2000 --split val --out v7w/     Visual7W; also: pointing
      sightline scenes changes --n 1000 --out change/              CLEVR-Change; also: multi-changes
      sightline scenes queries --split test-combinations --out q/  CIRR; also: edits, dialogues, prompts
      sightline scenes captions --n 5000 --arrow --out world/      for datasets.load_from_disk

    The same command goes on where it was stopped: pictures that are there are kept.
    """
    if task is None or task not in _TASKS:
        given = "" if task is None else f", given {task!r}"
        raise Misuse(f"scenes needs a TASK, one of {', '.join(_TASKS)}{given}")
    if out is None:
        raise Misuse(f"scenes {task} needs --out FOLDER to write to")
    world = _open(task, n, size, seed, split, objects)
    try:
        with _progress(n, quiet=as_json or arrow) as done:
            _write(world, task, out, arrow, done)
    except OSError as error:
        raise Misuse(f"--out {out}: cannot write there ({(error.strerror or one_line(error)).lower()})") from error
    if as_json:
        written = {"task": task, "scenes": n, "seed": seed, "split": split, "out": str(out)}
        print_json({"verb": "scenes", **written, "format": "datasets" if arrow else "files"})
    else:
        typer.echo(f"{n} scenes for {task} are in {out}")


def _open(task: str, n: int, size: str, seed: int, split: str, objects: str | None) -> "Scenes":
    from sightline.data.scenes import Scenes

    sides = re.fullmatch(r"(\d+)(?:x(\d+))?", size)
    if sides is None:
        raise Misuse(f"--size {size}: expected a number of pixels, or HEIGHTxWIDTH, as in 320x480")
    wide = int(sides[1]) if sides[2] is None else (int(sides[1]), int(sides[2]))
    ends = re.fullmatch(r"(\d+)(?:-(\d+))?", objects or ("4-7" if task == "pointing" else "3-6"))
    if ends is None:
        raise Misuse(f"--objects {objects}: expected LEAST-MOST, as in 3-6")
    return Scenes(seed, split, wide, n, (int(ends[1]), int(ends[2] or ends[1])))


def _write(world: "Scenes", task: str, out: Path, arrow: bool, done: Callable[[int], object]) -> None:
    if arrow:
        import datasets

        if not sys.stderr.isatty():
            datasets.disable_progress_bars()
        from sightline.data.scenes.rows import as_dataset

        as_dataset(world, task, out)
        return
    from sightline.data.scenes.folder import Folder
    from sightline.data.scenes.writers import TASKS

    TASKS[task](Folder(out, task, world, done))


@contextmanager
def _progress(total: int, quiet: bool) -> Iterator[Callable[[int], object]]:
    """A bar on stderr where a terminal shows it; gives what is to be called with each number of scenes done."""
    if quiet or not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        job = bar.add_task("Drawing scenes", total=total)
        yield lambda count: bar.advance(job, count)
