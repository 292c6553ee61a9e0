"""`sightline translate`: a sentence in another language, and which word each word was written from."""

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sightline.cli.console import busy, hush_libraries, print_json, tracked
from sightline.cli.failures import Failures, Misuse, exit_with, report, say, told_failures
from sightline.cli.given import check_named
from sightline.cli.outputs import OutputFolder, replaced_files, tell_replaced

if TYPE_CHECKING:
    from sightline.tasks.translate import Translation, Translator

SUFFIXES = (".alignment.png", ".alignment.html")
HEADS = ".heads.png"  # of a system with several layers or heads
CHUNK = 256  # lines between two writes of a file's translation


def translate(
    sentences: Annotated[list[str] | None, typer.Argument(metavar="SENTENCE…", help="Sentences, in quotes.")] = None,
    files: Annotated[
        list[Path] | None, typer.Option("--file", "-f", help="A text file, one sentence a line; - is standard input.")
    ] = None,
    system: Annotated[
        str, typer.Option("--system", "-s", help="Bundled name, a run's folder, MarianMT's folder or hub id.")
    ] = "transformer",
    beam: Annotated[int, typer.Option(min=1, help="Hypotheses kept at each step; 1 is greedy.")] = 5,
    length_penalty: Annotated[float, typer.Option(min=0.0, help="Score = log-probability / length ** this.")] = 1.0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for alignments (sentences) and translations (files).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document, nothing else.")] = False,
) -> None:
    """Translate sentences and see which word each word was written from.

    [bold]Examples[/bold]

    \b
      sightline translate "Ein Mann spielt Gitarre."
      sightline translate "Ein Hund rennt über die Wiese." --out looks
      sightline translate --file captions.de --out translated
      echo "Zwei Kinder lachen." | sightline translate --file -
      sightline translate "Das Haus ist klein." --system Helsinki-NLP/opus-mt-de-en

    The bundled systems, transformer and seq2seq, learned German captions of photographs and their English translations,
    and know little else.
    With --out, sentences leave a picture and a page of their alignment, files a text of as many lines, blank where they
    are; a file that was cut off goes on where it stopped.
    """
    if not sentences and not files:
        raise Misuse("translate needs at least one SENTENCE, or --file; see `sightline translate --help`")
    check_named(system, "translator", "pieces.json", files=("pieces.json", "config.json"))
    failures: Failures = []
    sentences = _worded(sentences or [], failures)
    lines = _read_files(files or [], failures)
    if not sentences and not lines:
        _finish(system, [], failures, None, as_json)
        return
    with busy(f"Opening {system} …", as_json):
        from sightline.tasks.translate import open_translator

        hush_libraries()
        opened = open_translator(system)
    folder = OutputFolder(out) if out else None
    options = {"beam": beam, "length_penalty": length_penalty}
    results = []
    for result in _each(sentences, opened, options, folder, failures, as_json):
        results.append(result)
        if not as_json:
            _say(result)
    for path, texts in lines:
        done = _file(path, texts, opened, options, folder, failures, as_json)
        results.append(done) if folder else results.extend(done["lines"])
        if not as_json:
            typer.echo(done["translation"] if folder else "\n".join(line["text"] for line in done["lines"]))
    _finish(opened.name, results, failures, folder, as_json)


def _finish(
    system: str, results: list[dict[str, Any]], failures: Failures, folder: OutputFolder | None, as_json: bool
) -> None:
    if as_json:
        files = {"results": results, "replaced": replaced_files(folder)}
        print_json({"verb": "translate", "system": system, **files, "failures": told_failures(failures, "source")})
    else:
        tell_replaced(folder)
        if results and folder is None and sys.stderr.isatty():
            say("--out FOLDER writes a page for each sentence that shows from which words each word was written")
    exit_with(failures)


def _worded(sentences: list[str], failures: Failures) -> list[str]:
    """The sentences that say something; the others are reported before any system is opened."""
    for sentence in sentences:
        if not sentence.strip():
            report(failures, repr(sentence[:60]), Misuse("the sentence is empty; give some words"))
    return [sentence for sentence in sentences if sentence.strip()]


def _read_files(files: list[Path], failures: Failures) -> list[tuple[Path, list[str]]]:
    """The files that can be read with their sentences; the others are reported and the rest goes on."""
    lines = []
    for path in files:
        try:
            lines.append((path, _lines_of(path)))
        except Misuse as error:
            report(failures, str(path), error)
    return lines


def _lines_of(path: Path) -> list[str]:
    """The sentences of a text file, without their line ends; Misuse, naming the file, where it cannot be read."""
    try:
        raw = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Misuse(f"--file {path}: is no text in UTF-8 (byte {error.start})") from error
    except OSError as error:
        raise Misuse(f"--file {path}: cannot be read ({(error.strerror or 'no file').lower()})") from error
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    if not any(line.strip() for line in lines):
        raise Misuse(f"--file {path}: holds no sentence")
    return lines


def _each(
    sentences: list[str],
    opened: "Translator",
    options: dict[str, Any],
    folder: OutputFolder | None,
    failures: Failures,
    quiet: bool,
) -> Iterator[dict[str, Any]]:
    from sightline.tasks.translate import translate as translate_one

    for sentence in tracked(sentences, "Translating", quiet=quiet):
        try:
            found = translate_one(sentence, system=opened, **options)
            result = _result(found)
            if found.unknown and not quiet:
                say(f"note: {sentence[:60]!r}: {_never(found.system, found.unknown)}")
            if folder is not None and found.attention is not None:
                result |= _draw(found, folder, Path(" ".join(sentence.split())[:60]))
        except (ValueError, OSError, RuntimeError, MemoryError) as error:
            report(failures, repr(sentence[:60]), error)
            continue
        yield result


def _draw(found: "Translation", folder: OutputFolder, source: Path) -> dict[str, str]:
    """Writes the alignment, and that of each layer and head where there are several; gives the paths."""
    assert found.attention is not None
    several = found.attention.heads is not None
    names = folder.names(source, (*SUFFIXES, HEADS) if several else SUFFIXES)
    found.save(names[0])
    found.save(names[1])
    if several:
        found.heads_picture().save(names[2])
    for path in names:
        folder.wrote(path, source)
    return dict(zip(("picture", "page", "heads"), map(str, names), strict=False))


def _result(found: "Translation") -> dict[str, Any]:
    result: dict[str, Any] = {"source": found.source, "text": found.text, "score": found.score}
    result["unknown"] = list(found.unknown)
    if found.attention is not None:
        result["alignment"] = [
            {"word": word, "from": source, "weight": weight} for word, source, weight in found.attention.pairs()
        ]
    return result


def _say(result: dict[str, Any]) -> None:
    typer.echo(result["text"])
    if "picture" in result:
        for key in ("picture", "heads", "page"):
            if key in result:
                typer.echo(f"  {result[key]}")


def _file(
    path: Path,
    texts: list[str],
    opened: "Translator",
    options: dict[str, Any],
    folder: OutputFolder | None,
    failures: Failures,
    quiet: bool,
) -> dict[str, Any]:
    """Translates a file in chunks; with a folder, each chunk is written before the next, and read again on resuming."""
    from sightline.tasks.translate import translate_all

    source = Path("stdin") if str(path) == "-" else path
    names = folder.names(source, (".translated.jsonl", ".translated.txt")) if folder else ()
    made = {"system": opened.name, **options}
    done = _kept(names[0], texts, made) if names else []
    resumed = len(done)
    if folder is not None and resumed:  # gone on with, not replaced
        folder.keeps(names)
    _readable(path, texts, [place for place, line in enumerate(done) if "score" not in line], opened, failures)
    for first in tracked(range(resumed, len(texts), CHUNK), f"Translating {source.name}", quiet=quiet):
        places = range(first, min(first + CHUNK, len(texts)))
        good = _readable(path, texts, places, opened, failures)
        found = dict(zip(good, translate_all([texts[p] for p in good], system=opened, **options), strict=True))
        for place in places:
            done.append({"source": texts[place], **_line(found.get(place))})
        if folder is not None:
            _write(
                folder, names[0], source, "".join(json.dumps(line | made, ensure_ascii=False) + "\n" for line in done)
            )
    if folder is not None:
        _write(folder, names[1], source, "".join(line["text"] + "\n" for line in done))
    if not quiet:
        _tell_unknown(path, done, opened.name)
    written = str(names[1]) if names else None
    return {"file": str(path), "translation": written, "lines": done, "resumed": resumed}


def _line(found: "Translation | None") -> dict[str, Any]:
    """What is kept of one line of a file; of one that was not translated, that it is blank."""
    if found is None:
        return {"text": ""}
    return {"text": found.text, "score": found.score} | ({"unknown": list(found.unknown)} if found.unknown else {})


def _tell_unknown(path: Path, done: list[dict[str, Any]], name: str) -> None:
    """Says on stderr, in one line, what of a file's lines the system has never read."""
    never = dict.fromkeys(part for line in done for part in line.get("unknown", ()))
    if never:
        count = sum("unknown" in line for line in done)
        say(f"note: {path}, {count} line{'s' if count > 1 else ''}: {_never(name, never)}")


def _never(name: str, unknown: Iterable[str]) -> str:
    parts = [part if part.isprintable() else ascii(part) for part in unknown]
    return f"{name} has never read {' '.join(parts[:20])}{' …' if parts[20:] else ''} and takes each for unknown"


def _readable(
    path: Path, texts: list[str], places: Iterable[int], opened: "Translator", failures: Failures
) -> list[int]:
    """The places of the lines that can be translated; blank lines stay blank, others are reported."""
    from sightline.tasks.translate import read_sentence

    good: list[int] = []
    for place in places:
        if not texts[place].strip():
            continue
        try:
            read_sentence(texts[place], opened.pieces)
            good.append(place)
        except ValueError as error:
            report(failures, f"{path} line {place + 1}", error)
    return good


def _write(folder: OutputFolder, path: Path, source: Path, text: str) -> None:
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text, "utf-8")
    fresh.replace(path)
    folder.wrote(path, source)


def _kept(path: Path, texts: list[str], made: dict[str, Any]) -> list[dict[str, Any]]:
    """The lines of an earlier run that this one would write again: same sentence, system and search."""
    if not path.is_file():
        return []
    kept: list[dict[str, Any]] = []
    for text, line in zip(texts, path.read_text("utf-8").removesuffix("\n").split("\n"), strict=False):
        entry = json.loads(line)
        if entry.get("source") != text or any(entry.get(key) != value for key, value in made.items()):
            break
        kept.append({key: entry[key] for key in ("source", "text", "score", "unknown") if key in entry})
    return kept
