"""`sightline segment`: what is where in each photograph, and where each class's token looked."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sightline.cli.console import busy, hush_libraries, print_json, tracked
from sightline.cli.failures import Misuse, code_of, one_line
from sightline.cli.look import gather, report
from sightline.cli.outputs import OutputFolder, replaced_files, tell_replaced

if TYPE_CHECKING:
    from sightline.tasks.segment import Segmentation

SUFFIXES = (".segment.json", ".mask.png", ".segment.png", ".segment.html")
_SCALES = typer.Option(metavar="S,S,…", help="Scales whose answers are averaged, as in 0.75,1,1.25.")


@dataclass(frozen=True)
class Made:
    """One photograph's areas and files; `told` is what --json prints of it."""

    source: Path
    told: dict[str, Any]
    kept: bool = False


def segment(
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGE…", help="Files, folders (searched through) or 'patterns*'."),
    ] = None,
    system: Annotated[
        str, typer.Option("--system", "-s", help="Bundled name, folder of a run or published one, or hub id.")
    ] = "segmenter_hybrid",
    scales: Annotated[str, _SCALES] = "1",
    flip: Annotated[bool, typer.Option("--flip", help="Average with the mirrored picture, too.")] = False,
    smooth: Annotated[
        bool, typer.Option("--smooth", help="Windows count less towards their borders: no straight seams.")
    ] = False,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for masks, pictures and pages.")] = Path("segments"),
    sample: Annotated[bool, typer.Option("--sample", help="Segment the photographs that come with sightline.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document, nothing else.")] = False,
) -> None:
    """Name every pixel of each photograph: a mask, a picture with its legend, and the share of each class.

    [bold]Examples[/bold]

    \b
      sightline segment street.jpg
      sightline segment drive/ --scales 0.75,1,1.25 --flip --out named --json
      sightline segment room.jpg --system seg_small_mask/

    The bundled system learned from 367 frames of drives through one town and knows eleven classes of streets; it gives
    every picture these names.  What --out already holds, with the same settings, is not made again.
    """
    if not images and not sample:
        raise Misuse("segment needs at least one IMAGE (or --sample); see `sightline segment --help`")
    asked = {"system": system, "scales": read_scales(scales), "flip": flip}
    if smooth:  # only then, so that what was made before there was this choice is still known
        asked["smooth"] = True
    failures: list[tuple[str, BaseException]] = []
    photographs = gather(images or [], sample, failures)
    results: list[Made] = []
    folder = OutputFolder(out) if photographs else None
    if folder is not None:
        with busy(f"Opening {system} …", as_json):
            from sightline.tasks.segment import open_segmenter

            hush_libraries()
            opened = open_segmenter(system)
        for photograph in tracked(photographs, "Segmenting", quiet=as_json):
            try:
                results.append(_segment(photograph, opened, folder, asked))
            except (ValueError, OSError, RuntimeError, MemoryError) as error:
                report(failures, str(photograph), error)
    index = _write_index(folder, results, system) if folder is not None and len(results) > 1 else None
    if as_json:
        told = [{"image": source, "error": one_line(error)} for source, error in failures]
        made = [result.told for result in results]
        files = {"index": index and str(index), "replaced": replaced_files(folder)}
        print_json({"verb": "segment", "results": made, **files, "failures": told})
    else:
        _print_person(results, index)
        tell_replaced(folder)
    if failures:
        raise typer.Exit(max(code_of(error) for _, error in failures))


def read_scales(text: str) -> list[float]:
    """Reads "0.75,1,1.25"; raises Misuse for anything but numbers between 0.1 and 4."""
    try:
        scales = [float(word) for word in text.split(",")]
    except ValueError:
        scales = []
    if not scales or not all(0.1 <= scale <= 4 for scale in scales):
        raise Misuse(f"--scales {text}: expected numbers between 0.1 and 4 with commas between, such as 0.75,1,1.25")
    return scales


def _segment(photograph: Path, opened: Any, folder: OutputFolder, asked: dict[str, Any]) -> Made:
    asked = asked | {"sha256": hashlib.sha256(photograph.read_bytes()).hexdigest()}
    held = folder.held(photograph, SUFFIXES)
    if held:
        told = json.loads(held[0].read_text("utf-8"))
        if told.get("asked") == asked:
            return Made(photograph, told, kept=True)
    from sightline.tasks.segment import segment as name_pixels

    named = name_pixels(photograph, system=opened, scales=asked["scales"], flip=asked["flip"], smooth="smooth" in asked)
    paths = held or folder.names(photograph, SUFFIXES)
    for path in paths[1:]:
        named.save(path)
        folder.wrote(path, photograph)
    told = _told(photograph, named, paths, asked)
    # last, since its presence says that the others are complete
    paths[0].write_text(json.dumps(told, ensure_ascii=False, indent=1) + "\n", "utf-8")
    folder.wrote(paths[0], photograph)
    return Made(photograph, told)


def _told(photograph: Path, named: "Segmentation", paths: tuple[Path, ...], asked: dict[str, Any]) -> dict[str, Any]:
    areas = [
        {"class": name, "number": named.classes.index(name), "share": share, "sure": named.sure[name]}
        for name, share in named.areas.items()
    ]
    files = {"mask": str(paths[1]), "picture": str(paths[2]), "page": str(paths[3])}
    size = {"width": named.image.width, "height": named.image.height}
    return {"image": str(photograph), **size, "areas": areas, **files, "asked": asked}


def _sentence(told: dict[str, Any]) -> str:
    from sightline.lens.sheet import spoken

    return ", ".join(f"{spoken(area['class'])} {area['share']:.0%}" for area in told["areas"][:3])


def _write_index(folder: OutputFolder, results: list[Made], system: str) -> Path | None:
    entries = [
        (made.source.name, Path(made.told["picture"]).name, Path(made.told["page"]).name, _sentence(made.told))
        for made in results
    ]
    return folder.index(f"What {system} sees where", entries)


def _print_person(results: list[Made], index: Path | None) -> None:
    from sightline.lens.sheet import spoken

    for made in results:
        typer.echo(f"{made.source.name}{'  (segmented earlier)' if made.kept else ''}")
        wide = max(len(area["class"]) for area in made.told["areas"])
        typer.echo(f"  {'class':<{wide}}   area   sure")
        for area in made.told["areas"]:
            typer.echo(f"  {spoken(area['class']):<{wide}} {area['share']:6.1%} {area['sure']:6.0%}")
        typer.echo(f"  {made.told['mask']}\n  {made.told['picture']}\n  {made.told['page']}")
    if index is not None:
        typer.echo(f"All together: {index}")
    if results:
        typer.echo("A map shows where attention went, not why.")
