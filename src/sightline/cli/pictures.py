"""The frame of the verbs that answer about pictures: find them, answer each or keep what is there, tell all."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import typer

from sightline.cli.console import print_json, tracked
from sightline.cli.failures import Failures, exit_with, report, report_once, say, say_counts, told_failures
from sightline.cli.outputs import OutputFolder, replaced_files, tell_replaced

JUDGED = 32_000_000  # pixels of pictures
MOST_REMARKS = 5  # lines on a terminal
Told = dict[str, Any]  # what --json prints of one picture
Result = TypeVar("Result")


def gather(images: list[str], sample: bool = False) -> tuple[list[Path], Failures]:
    """All photographs that the arguments name, each once, and what named none or cannot be one; the rest goes on.

    Files and their headers are judged, and what is wrong is reported, before a model is opened for them; the first
    `JUDGED` pixels whole, since to decode these takes less time than to open a model.  `sample` puts the
    photographs that come with sightline first.
    """
    from sightline.data.photographs import PhotographError, check_photograph, find_photographs, sample_photographs

    failures: Failures = []
    found: dict[Path, None] = dict.fromkeys(sample_photographs() if sample else [])
    for given in images:
        try:
            found.update(dict.fromkeys(find_photographs([given])))
        except PhotographError as error:
            report(failures, given, error)
    usable, left = [], JUDGED
    for picture in found:
        try:
            left -= check_photograph(picture, left)
        except PhotographError as error:
            report(failures, str(picture), error)
        else:
            usable.append(picture)
    return usable, failures


def remark_on(pictures: Sequence[Path], quiet: bool) -> list[dict[str, str]]:
    """What is to be known of some pictures, for the JSON document of a verb; for persons it is said on stderr."""
    from sightline.data.photographs import remark

    found = [{"image": str(picture), "remark": told} for picture in pictures if (told := remark(picture))]
    if not quiet:
        for one in found[:MOST_REMARKS]:
            say(f"note: {one['image']} {one['remark']}")
        if len(found) > MOST_REMARKS:
            say(f"note: {len(found) - MOST_REMARKS} more pictures are tiny or one of several; --json lists them")
    return found


def each(
    pictures: Sequence[Path],
    make: Callable[[Path], Result],
    failures: Failures,
    *,
    doing: str,
    quiet: bool,
    fatal: tuple[type[Exception], ...] = (),
) -> Iterator[tuple[Path, Result]]:
    """Each picture with what `make` gives of it; one that it cannot use is reported and the rest goes on.

    `doing` stands beside the progress bar, unless `quiet`.  An error in `fatal` is raised: it would be every picture's.
    Another that is the same for several is said once, and at the end for how many more.
    """
    said: dict[str, int] = {}
    for picture in tracked(pictures, doing, quiet=quiet):
        try:
            made = make(picture)
        except fatal:
            raise
        except (ValueError, OSError, RuntimeError, MemoryError) as error:
            report_once(failures, str(picture), error, said)
        else:
            yield picture, made
    say_counts(said)


@dataclass(frozen=True)
class Made:
    """One picture's answer on disk; `kept` says that an earlier command made it.

    The answer itself is let go, so that a batch stays small.
    """

    source: Path
    told: Told
    kept: bool = False


class Batch:
    """The pictures of one command, what was made of them, and what failed.

    Where there are pictures, the folder `out` is made at once: whether it can be written is known before a system is
    opened.  Raises `Misuse` where it cannot.
    """

    def __init__(self, verb: str, pictures: list[Path], failures: Failures, out: Path, as_json: bool) -> None:
        self.verb, self.pictures, self.failures, self.as_json = verb, pictures, failures, as_json
        self.folder = OutputFolder(out) if pictures else None
        self.made: list[Made] = []
        self.remarks = remark_on(pictures, quiet=as_json)

    def make_each(self, make: Callable[[Path], Made], *, doing: str, fatal: tuple[type[Exception], ...] = ()) -> None:
        """Makes something of each picture; `doing` and `fatal` are as in `each`."""
        for _, made in each(self.pictures, make, self.failures, doing=doing, quiet=self.as_json, fatal=fatal):
            self.made.append(made)

    def answer_each(
        self,
        answer: Callable[[Path], Any],
        tell: Callable[[Any, tuple[Path, ...]], Told],
        *,
        asked: dict[str, Any],
        forms: Sequence[tuple[str, ...]],
        doing: str,
        about: str = "",
        fatal: tuple[type[Exception], ...] = (),
    ) -> None:
        """Answers each picture, unless the folder holds its answer to the same `asked`.

        `forms` are the endings of an answer's files, the JSON first: of one with attention, then of one without where
        that leaves others.  `tell` gives an answer and its files as plain values, `about` is as in
        `OutputFolder.names`, `doing` and `fatal` are as in `each`.
        """
        folder = self.folder
        if folder is None:
            return

        def make(picture: Path) -> Made:
            return _kept_or_made(picture, folder, answer, tell, asked, forms, about)

        self.make_each(make, doing=doing, fatal=fatal)

    def index(self, title: str, sentence: Callable[[Told], str]) -> Path | None:
        """Writes one page of all pictures with a sentence each, where there are several and something was drawn."""
        if self.folder is None or len(self.made) < 2:
            return None
        entries = []
        for made in self.made:
            picture, page = made.told["picture"], made.told["page"]
            if picture:
                entries.append((made.source.name, Path(picture).name, Path(page or picture).name, sentence(made.told)))
        return self.folder.index(title, entries)

    def finish(
        self,
        title: str,
        *,
        sentence: Callable[[Told], str],
        show: Callable[[Made], str],
        close: Callable[[Told], str],
    ) -> None:
        """Writes the index, tells all that was made, and ends with the exit code of what failed.

        For persons `show` says one result, and `close`, by the first of them, what holds of all.
        """
        index = self.index(title, sentence)
        if self.as_json:
            self.print_json(index)
        else:
            for made in self.made:
                typer.echo(show(made))
            if index is not None:
                typer.echo(f"All together: {index}")
            if self.made:
                typer.echo(close(self.made[0].told))
            tell_replaced(self.folder)
        exit_with(self.failures)

    def print_json(self, index: Path | None) -> None:
        """The one JSON document of the verb."""
        files = {"index": index and str(index), "replaced": replaced_files(self.folder)}
        results = [made.told for made in self.made]
        told = {"remarks": self.remarks, "failures": told_failures(self.failures)}
        print_json({"verb": self.verb, "results": results, **files, **told})


def not_why(told: Told) -> str:
    """The remark below maps of attention, the same for all."""
    return "A map shows where attention went, not why."


def _kept_or_made(
    picture: Path,
    folder: OutputFolder,
    answer: Callable[[Path], Any],
    tell: Callable[[Any, tuple[Path, ...]], Told],
    asked: dict[str, Any],
    forms: Sequence[tuple[str, ...]],
    about: str,
) -> Made:
    """The answer that the folder holds of this very picture, `asked` the same; else a new one, written."""
    asked = asked | {"sha256": hashlib.sha256(picture.read_bytes()).hexdigest()}
    held = next(filter(None, (folder.held(picture, form, about) for form in forms)), ())
    if held:
        told = json.loads(held[0].read_text("utf-8"))
        # the JSON alone is a whole answer only if it names no picture; else the picture was changed or is gone
        if told.get("asked") == asked and (len(held) == len(forms[0]) or told["picture"] is None):
            return Made(picture, told, kept=True)
    answered = answer(picture)
    form = forms[0] if answered.attention is not None else forms[-1]
    paths = held if len(held) == len(form) else folder.names(picture, form, about)
    for path in paths[1:]:
        answered.save(path)
        folder.wrote(path, picture, about)
    told = {"image": str(picture), **tell(answered, paths), "asked": asked}
    # last, since its presence says that the others are complete
    paths[0].write_text(json.dumps(told, ensure_ascii=False, indent=1) + "\n", "utf-8")
    folder.wrote(paths[0], picture, about)
    return Made(picture, told)
