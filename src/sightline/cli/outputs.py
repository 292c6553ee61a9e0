"""Names for the files that a verb writes: no two alike, none that would replace somebody else's file."""

import hashlib
import json
import re
from pathlib import Path
from urllib.parse import quote

import typer

from sightline.cli.failures import Misuse

LEDGER = ".sightline.json"


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _origin(source: Path, about: str) -> str:
    return f"{source.resolve()}\n{about}" if about else str(source.resolve())


class OutputFolder:
    """A folder of results with a ledger of what was written there, from what.

    The same source gets the same names again and replaces its own results; another source of the same name
    gets names of its own.  A file that is not in the ledger, or was changed since, is never touched. Raises
    ``Misuse`` where the folder cannot be made or written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.replaced: list[Path] = []  # what lay here before and was written anew
        self._given: set[str] = set()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not folder.is_dir():
                raise NotADirectoryError
            self._written = self._read_ledger()
            self._found = {name for name in self._written if (folder / name).exists()}
            self._keep()
        except OSError as error:
            reason = error.strerror or "not a folder"
            raise Misuse(f"--out {folder}: cannot write there ({reason.lower()})") from error

    def _read_ledger(self) -> dict[str, dict[str, str]]:
        path = self.folder / LEDGER
        if not path.is_file():
            return {}
        try:
            written = json.loads(path.read_text("utf-8"))["written"]
            return {str(name): {"source": str(e["source"]), "sha256": str(e["sha256"])} for name, e in written.items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            return {}  # without a readable ledger every file counts as somebody else's

    def _keep(self) -> None:
        text = json.dumps({"made by": "sightline", "written": self._written}, ensure_ascii=False, indent=1)
        (self.folder / LEDGER).write_text(text + "\n", "utf-8")

    def _is_free(self, name: str, source: str) -> bool:
        if name.casefold() in self._given:
            return False
        path, entry = self.folder / name, self._written.get(name)
        if not path.exists():
            return True
        return entry is not None and entry["source"] == source and _digest(path) == entry["sha256"]

    def names(self, source: Path, suffixes: tuple[str, ...], about: str = "") -> tuple[Path, ...]:
        """Paths ``stem + suffix`` for the results of one source, the stem numbered until all of them are free.

        Another `about`, as of another question, has names of its own.
        """
        stem = re.sub(r'[\x00-\x1f<>:"/\\|?*]', "_", source.stem)[:80].rstrip(". ") or "picture"
        origin = _origin(source, about)
        for number in range(1, 100_000):
            names = [f"{stem if number == 1 else f'{stem}-{number}'}{suffix}" for suffix in suffixes]
            if all(self._is_free(name, origin) for name in names):
                self._given.update(name.casefold() for name in names)
                return tuple(self.folder / name for name in names)
        raise Misuse(f"--out {self.folder}: no free name for {source.name}; empty the folder")

    def held(self, source: Path, suffixes: tuple[str, ...], about: str = "") -> tuple[Path, ...] | None:
        """The results of one source that an earlier command left here, all of them and unchanged; else None."""
        origin = _origin(source, about)
        for name, entry in self._written.items():
            if entry["source"] != origin or not name.endswith(suffixes[0]):
                continue
            names = [name.removesuffix(suffixes[0]) + suffix for suffix in suffixes]
            # what lies there and is free for this very source was written here from it, and not changed since
            if all((self.folder / one).is_file() and self._is_free(one, origin) for one in names):
                self._given.update(one.casefold() for one in names)
                return tuple(self.folder / one for one in names)
        return None

    def fixed(self, name: str) -> Path:
        """A path with exactly this name; raises ``Misuse`` where a file that was not written here has it."""
        if not self._is_free(name, "") and name.casefold() not in self._given:
            raise Misuse(f"{self.folder / name} was not written by sightline; move it, or choose another --out")
        self._given.add(name.casefold())
        return self.folder / name

    def keeps(self, paths: tuple[Path, ...]) -> None:
        """Count results that are gone on with as none that are replaced."""
        self._found.difference_update(path.name for path in paths)

    def wrote(self, path: Path, source: Path | None = None, about: str = "") -> None:
        """Enter a finished result in the ledger; one without a source has a `fixed` name."""
        if path.name in self._found:
            self._found.remove(path.name)
            self.replaced.append(path)
        self._enter(path, "" if source is None else _origin(source, about))

    def _enter(self, path: Path, origin: str) -> None:
        self._written[path.name] = {"source": origin, "sha256": _digest(path)}
        self._keep()

    def index(self, title: str, entries: list[tuple[str, str, str, str]]) -> Path | None:
        """Write index.html, the page of (name, picture, page, sentence); None for no entries.

        It lists what one command made and is no result of its own, so a new one counts as none that is replaced.
        """
        if not entries:
            return None
        path = self.fixed("index.html")
        path.write_text(index_page(title, entries), "utf-8")
        self._enter(path, "")
        return path


def replaced_files(folder: OutputFolder | None) -> list[str]:
    """The earlier results that were written anew, for the JSON document of a verb."""
    return [] if folder is None else [str(path) for path in folder.replaced]


def tell_replaced(folder: OutputFolder | None) -> None:
    """Say on stdout how many earlier results were written anew, where any were."""
    if folder is not None and folder.replaced:
        many = "1 earlier result" if len(folder.replaced) == 1 else f"{len(folder.replaced)} earlier results"
        typer.echo(f"Replaced {many} in {folder.folder}; another --out keeps both.")


def index_page(title: str, entries: list[tuple[str, str, str, str]]) -> str:
    """One self-contained page of (name, picture, page, sentence) with relative links, for a folder of
    results."""
    from html import escape

    cards = "\n".join(
        f'<a href="{quote(page)}"><img loading="lazy" src="{quote(picture)}" alt="{escape(sentence)}">'
        f"<b>{escape(name)}</b><span>{escape(sentence)}</span></a>"
        for name, picture, page, sentence in entries
    )
    style = (
        "body{font:15px/1.45 system-ui,sans-serif;margin:2rem;color:#1d1d1f;background:#fafafa}"
        "main{display:grid;grid-template-columns:repeat(auto-fill,minmax(280px,1fr));gap:1.25rem}"
        "a{display:flex;flex-direction:column;gap:.4rem;padding:.75rem;border-radius:10px;background:#fff;"
        "border:1px solid #ddd;color:inherit;text-decoration:none}a:hover,a:focus{border-color:#666}"
        # pictures of any shape take cells of one, so that names and sentences stand in line
        "img{width:100%;aspect-ratio:4/3;object-fit:contain;border-radius:6px}b{overflow-wrap:anywhere}span{color:#555}"
        "@media(prefers-color-scheme:dark){body{background:#151517;color:#eee}a{background:#1f1f22;"
        "border-color:#3a3a3d}span{color:#aaa}}"
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="generator" content="sightline">'
        f"<title>{escape(title)}</title><style>{style}</style></head>\n<body><h1>{escape(title)}</h1>\n"
        f"<p>A map shows where attention went, not why.</p>\n<main>\n{cards}\n</main></body></html>\n"
    )
