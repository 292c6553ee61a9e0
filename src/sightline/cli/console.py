"""What the verbs print on: results go to stdout; progress and remarks go to stderr."""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from typing import Any, TypeVar

import typer

from sightline.cli.failures import say

Item = TypeVar("Item")
FIRST, MOST_SILENT = 5.0, 60.0  # seconds until the first line about what goes on in a pipe, and between two at most


def print_json(document: Any) -> None:
    """The one JSON document of a verb that was asked for `--json`."""
    typer.echo(json.dumps(document, ensure_ascii=False, indent=2))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str] = ()) -> None:
    """A table on stdout, as wide as it needs to be where nobody's terminal limits it."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    table = Table(title=Text(title), title_justify="left")
    for name in columns:
        table.add_column(Text(name), justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    if not console.is_terminal:
        console.width = max(console.measure(table, options=console.options.update(width=10_000)).maximum, 80)
    console.print(table)


@contextmanager
def busy(message: str, quiet: bool) -> Iterator[None]:
    """A spinner on stderr while something of unknown length goes on; `lines` where no terminal shows it."""
    with redirect_stdout(sys.stderr), _spinner(message, quiet):  # what libraries print while they load is no result
        yield


def _spinner(message: str, quiet: bool) -> AbstractContextManager[object]:
    if quiet or not sys.stderr.isatty():
        return lines(lambda: message, quiet)
    from rich.console import Console
    from rich.text import Text

    return Console(stderr=True).status(Text(message))


@contextmanager
def lines(tell: Callable[[], str], quiet: bool) -> Iterator[None]:
    """Says on stderr what goes on, in lines for a pipe or a log: after `FIRST` seconds, then ever more seldom, but at
    least every `MOST_SILENT`; what is done sooner is done without a word."""
    over = threading.Event()

    def go_on() -> None:
        began, pause = time.monotonic(), FIRST
        while not over.wait(pause):
            try:
                say(f"{tell()} ({time.monotonic() - began:.0f} s)")
            except (OSError, ValueError):
                return  # whoever read the lines has gone; what is made is made all the same
            pause = min(2 * pause, MOST_SILENT)

    thread = threading.Thread(target=go_on, daemon=True)
    if not quiet:
        thread.start()
    try:
        yield
    finally:
        over.set()
        if not quiet:
            thread.join()


def tracked(items: Sequence[Item], message: str, quiet: bool) -> Iterator[Item]:
    """The items one by one, with a progress bar on stderr (for one, a spinner); `lines` where no terminal shows it."""
    if quiet or not sys.stderr.isatty():
        done = 0
        with lines(lambda: f"{message}, {done} of {len(items)} done" if len(items) > 1 else f"{message} …", quiet):
            for done, item in enumerate(items):  # noqa: B007 - the line tells of it
                yield item
        return
    if len(items) < 2:
        with _spinner(f"{message} …", quiet=not items):
            yield from items
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(items, description=message, console=Console(stderr=True), transient=True)


def hush_libraries() -> None:
    """Keep other libraries' loading bars and advice off the terminal; their errors still come through."""
    # what is not imported yet reads these when it is: to import it for this alone would take seconds
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if "huggingface_hub" in sys.modules:
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()
    if "transformers" in sys.modules:
        import transformers

        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
