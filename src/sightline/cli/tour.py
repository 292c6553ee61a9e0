"""`sightline tour`: every bundled system once, on one page."""

import base64
import io
import time
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from sightline.cli.console import busy, hush_libraries, print_json
from sightline.cli.outputs import OutputFolder, replaced_files, tell_replaced

if TYPE_CHECKING:
    from PIL import Image

    from sightline.tasks.tour import Stop


def tour(
    systems: Annotated[
        list[str] | None, typer.Argument(metavar="SYSTEM…", help="Only these stops; all of them where none is named.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the page.")] = Path("tour"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document, nothing else.")] = False,
) -> None:
    """Run every bundled system once and show input, answer and attention side by side.

    [bold]Examples[/bold]

    \b
      sightline tour
      sightline tour ram vit --out shown

    Nothing is fetched: the inputs come with sightline or are made on the spot.  A tour replaces the pages of an earlier
    one, and says so; files of others stay as they are.
    """
    start = time.perf_counter()
    folder = OutputFolder(out)
    with busy("Setting out …", as_json):
        from sightline.tasks.tour import left_out
        from sightline.tasks.tour import tour as visit

        hush_libraries()
        visited = visit(systems or None)
    sections, told = [], []
    for number, stop in enumerate(visited, 1):
        page = _save(stop, number, folder)
        sections.append(_section(stop, number, page))
        told.append(_told(stop, page))
        if not as_json:
            typer.echo(f"{number}. {stop.system} ({stop.verb}, {stop.seconds:.1f} s): {stop.answer}")
    index = folder.fixed("index.html")
    seconds = time.perf_counter() - start
    others = {} if systems else left_out()
    index.write_text(_page(sections, seconds, others), "utf-8")
    folder.wrote(index)
    if as_json:
        files = {"page": str(index), "replaced": replaced_files(folder)}
        print_json({"verb": "tour", "stops": told, "left_out": others, **files, "seconds": seconds})
        return
    for name, use in others.items():
        typer.echo(_no_stop(name, use))
    tell_replaced(folder)
    typer.echo(f"The tour took {seconds:.0f} s; open {index} in a browser.")


def _save(stop: "Stop", number: int, folder: OutputFolder) -> Path:
    """Writes the evidence with its controls as a page of its own."""
    path = folder.fixed(f"{number:02d}-{stop.system}.html")
    stop.result.save(path)
    folder.wrote(path)
    return path


def _told(stop: "Stop", page: Path) -> dict[str, Any]:
    return {
        "system": stop.system,
        "verb": stop.verb,
        "question": stop.question,
        "text": stop.text,
        "answer": stop.answer,
        "page": str(page),
        "seconds": stop.seconds,
    }


def _evidence(stop: "Stop", folder: Path) -> str:
    """The evidence picture as a data address: drawn by the result itself, passing through a file of its own."""
    import tempfile

    with tempfile.TemporaryDirectory(dir=folder) as place:
        path = Path(place) / "evidence.png"
        stop.result.save(path)
        return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _data(picture: "Image.Image") -> str:
    small, stream = picture.copy(), io.BytesIO()
    small.thumbnail((480, 480))
    small.save(stream, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def _section(stop: "Stop", number: int, page: Path) -> str:
    from sightline.checkpoints.bundled import bundled_card
    from sightline.cli.systems import figure

    card = bundled_card(stop.system)
    given = f'<img src="{_data(stop.picture)}" alt="the input">' if stop.picture else ""
    given += f"<blockquote>{escape(stop.text)}</blockquote>" if stop.text else ""
    reached = f"Measured: {escape(figure(card))}."
    control = figure(card.get("control", {}))
    reached += f" Control: {escape(control)}." if control != "-" else ""
    return (
        f'<section id="{number}"><header><h2>{number}. {escape(stop.system)}</h2>'
        f"<p>{escape(str(card.get('paper', '')))} · <code>sightline {stop.verb}</code> · {stop.seconds:.1f} s</p>"
        "</header>"
        f'<div class="pair"><figure>{given}<figcaption>{escape(stop.question)}</figcaption></figure>'
        f'<figure><a href="{quote(page.name)}"><img src="{_evidence(stop, page.parent)}" alt="where it looked"></a>'
        f"<figcaption><b>{escape(stop.answer)}</b></figcaption></figure></div>"
        f'<p class="small">{reached} <a href="{quote(page.name)}">Look closer</a></p></section>'
    )


_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;padding:0 1rem;max-width:1080px;color:#1d1d1f;"
    "background:#fafafa}section{background:#fff;border:1px solid #ddd;border-radius:12px;padding:1rem 1.4rem;"
    "margin:1.5rem 0}h2{margin:.2rem 0 0}header p,.small{color:#555;font-size:.9rem;margin:.2rem 0 .8rem}"
    ".pair{display:grid;grid-template-columns:minmax(0,1fr) minmax(0,2fr);gap:1.2rem;align-items:start}figure{margin:0}"
    "img{max-width:100%;border-radius:6px}blockquote{margin:0;font-size:1.15rem;padding:.8rem 1rem;background:#f2f2f4;"
    "border-radius:6px}figcaption{margin-top:.4rem}@media(max-width:700px){.pair{grid-template-columns:1fr}}"
    "@media(prefers-color-scheme:dark){body{background:#151517;color:#eee}section{background:#1f1f22;"
    "border-color:#3a3a3d}header p,.small{color:#aaa}blockquote{background:#2a2a2e}a{color:#8ab4f8}}"
)


def _no_stop(name: str, use: str) -> str:
    return f"No stop: {name}, which answers nothing by itself ({use})."


def _page(sections: list[str], seconds: float, others: dict[str, str]) -> str:
    left = "".join(f'<p class="small">{escape(_no_stop(name, use))}</p>\n' for name, use in others.items())
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="generator" content="sightline">'
        f"<title>Sightline: the tour</title><style>{_STYLE}</style></head>\n<body><h1>Where they look</h1>\n"
        f"<p>Every system that comes with Sightline, once, on this machine, in {seconds:.0f} seconds. A map shows "
        "where attention went, not why; the small bundled models err, and say so in their figures.</p>\n"
        + "\n".join(sections)
        + f"\n{left}</body></html>\n"
    )
