"""What lists and their pictures have in common: JSON and text read with clear errors, pictures found by name."""

import gzip
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

_ALIAS = {"dev": "val", "valid": "val", "validation": "val"}


def split_of(split: str, allowed: tuple[str, ...]) -> str:
    """Gives the usual name of a split (dev and validation are val).  Raises ValueError for one not in `allowed`."""
    name = _ALIAS.get(split, split)
    if name not in allowed:
        raise ValueError(f"split must be one of {', '.join(allowed)}, given {split!r}")
    return name


def read_text(file: Path) -> str:
    """Reads a UTF-8 text file, plain or `.gz`.  Raises ValueError, naming it, where it is missing or broken."""
    if not file.is_file():
        raise ValueError(f"{file}: no such file")
    try:
        raw = file.read_bytes()
        return (gzip.decompress(raw) if file.suffix == ".gz" else raw).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ValueError(f"{file}: line {line} is not UTF-8 text") from error
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{file}: cannot be read ({error})") from error


def lines_of(file: Path) -> Iterator[tuple[int, str]]:
    """Gives (number, line) of each line that is not blank.

    Split at the line feed only: captions hold other characters that `str.splitlines` would take for an end of line.
    """
    for number, line in enumerate(read_text(file).split("\n"), 1):
        if line.strip():
            yield number, line.rstrip("\r")


def read_json(file: Path, *keys: str) -> Any:
    """Reads JSON and makes sure of an object with lists under `keys`.  Raises ValueError in one line."""
    try:
        content = json.loads(read_text(file))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}: not JSON (line {error.lineno}, column {error.colno}: {error.msg})") from error
    for key in keys:
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            told = ", ".join(map(str, list(content)[:6])) if isinstance(content, dict) else type(content).__name__
            raise ValueError(f"{file}: expected an object with a list {key!r}, found {told or 'an empty object'}")
    return content


def field(entry: Any, key: str, where: str) -> Any:
    """Gives `entry[key]`.  Raises ValueError that says which entry (`where`) lacks the key."""
    if not isinstance(entry, dict) or key not in entry:
        told = ", ".join(map(str, entry)) if isinstance(entry, dict) else type(entry).__name__
        raise ValueError(f"{where} has no {key!r}, only {told or 'nothing'}")
    return entry[key]


def number_in(entry: Any, key: str, where: str) -> float:
    """Gives the number `entry[key]`, also one written as text.  Raises ValueError where it is none."""
    value = field(entry, key, where)
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {key!r} must be a number, found {str(value)[:40]!r}") from error


class Pictures:
    """Finds pictures by file name below a folder, in the folders where collections keep them.

    `places` are folders relative to `root`, in the order they are tried after `root` itself; those that do not exist
    are left out.  Nothing is opened before it is asked for, so a list without its pictures can still be read.
    """

    def __init__(self, root: str | os.PathLike[str], places: Iterable[str]) -> None:
        self.root = Path(root)
        self.folders = [self.root, *(self.root / place for place in places if (self.root / place).is_dir())]

    def path(self, name: str) -> Path:
        """Gives the file of the picture `name`.  Raises ValueError where none of the folders has it."""
        for number, folder in enumerate(self.folders):
            if (folder / name).is_file():
                if number:  # the next one most likely lies beside it
                    self.folders.insert(0, self.folders.pop(number))
                return folder / name
        looked = ", ".join(str(folder) for folder in sorted(self.folders))
        raise ValueError(f"{name}: no such picture in {looked}; put the collection's pictures there")
