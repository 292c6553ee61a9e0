"""`sightline segment`: what is where in each photograph, and where each class's token looked."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sightline.cli.console import busy, hush_libraries
from sightline.cli.failures import Misuse
from sightline.cli.given import check_named, learned_from
from sightline.cli.pictures import Batch, Made, Told, gather, not_why

if TYPE_CHECKING:
    from sightline.tasks.segment import Segmentation

SUFFIXES = (".segment.json", ".mask.png", ".segment.png", ".segment.html")
_SCALES = typer.Option(metavar="S,S,…", help="Scales whose answers are averaged, as in 0.75,1,1.25.")
_SMOOTH = typer.Option(
    "--smooth/--no-smooth", help="Windows count less towards their borders, so that no seam is seen; else all alike."
)


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
    smooth: Annotated[bool, _SMOOTH] = True,
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
    asked: dict[str, Any] = {"system": system, "scales": read_scales(scales), "flip": flip}
    if smooth:  # what was made before there was this choice, without a word of it, was not smooth
        asked["smooth"] = True
    check_named(system, "segmenter", begins="segmenter", files=("card.json", "variant.yml"))
    photographs, failures = gather(images or [], sample)
    batch = Batch("segment", photographs, failures, out, as_json)
    if photographs:
        with busy(f"Opening {system} …", as_json):
            from sightline.tasks.segment import open_segmenter
            from sightline.tasks.segment import segment as name_pixels

            hush_libraries()
            opened = open_segmenter(system)
        batch.answer_each(
            partial(name_pixels, system=opened, scales=asked["scales"], flip=flip, smooth=smooth),
            _told,
            asked=asked,
            forms=(SUFFIXES,),
            doing="Segmenting",
        )
    batch.finish(f"What {system} sees where", sentence=_sentence, show=_show, close=partial(_close, system=system))


def _close(told: Told, system: str) -> str:
    data = learned_from(system)
    learned = f" (it learned from {data})" if data else ""
    return f"Every pixel gets one of {system}'s classes, whatever the picture shows{learned}.\n{not_why(told)}"


def read_scales(text: str) -> list[float]:
    """Reads "0.75,1,1.25"; raises Misuse for anything but numbers between 0.1 and 4."""
    try:
        scales = [float(word) for word in text.split(",")]
    except ValueError:
        scales = []
    if not scales or not all(0.1 <= scale <= 4 for scale in scales):
        raise Misuse(f"--scales {text}: expected numbers between 0.1 and 4 with commas between, such as 0.75,1,1.25")
    return scales


def _told(named: "Segmentation", paths: tuple[Path, ...]) -> Told:
    areas = [
        {"class": name, "number": named.classes.index(name), "share": share, "sure": named.sure[name]}
        for name, share in named.areas.items()
    ]
    files = {"mask": str(paths[1]), "picture": str(paths[2]), "page": str(paths[3])}
    absent = [name for name in named.classes if name not in named.areas]
    return {"width": named.image.width, "height": named.image.height, "areas": areas, "absent": absent, **files}


def _sentence(told: Told) -> str:
    from sightline.lens.sheet import spoken

    return ", ".join(f"{spoken(area['class'])} {area['share']:.0%}" for area in told["areas"][:3])


def _show(made: Made) -> str:
    from sightline.lens.segments import listed
    from sightline.lens.sheet import spoken

    told = made.told
    wide = max(len(area["class"]) for area in told["areas"])
    rows = [f"{spoken(area['class']):<{wide}} {area['share']:6.1%} {area['sure']:6.0%}" for area in told["areas"]]
    absent = told.get("absent")  # an earlier version did not tell it
    rows += [f"no pixel, so no row, colour or map: {listed(absent)}"] if absent else []
    lines = [f"{'class':<{wide}}   area   sure", *rows, told["mask"], told["picture"], told["page"]]
    return "\n  ".join([f"{made.source.name}{'  (segmented earlier)' if made.kept else ''}", *lines])
