"""One self-contained HTML page of a recording: photograph, maps of every layer and head, rows, checks.

The page loads nothing: the photograph is a data URI, maps are base64, script and style are inline, and a
content security policy forbids the rest.  `page.html` beside this file is its template.
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image

from sightline.lens.page_data import LIMIT, PageCurve, PageData, PageSite, data_uri, pack, payload
from sightline.lens.paint import photograph
from sightline.lens.sheet import SMALL_PRINT, spoken

__all__ = ["LIMIT", "PageCurve", "PageData", "PageSite", "pack", "page", "to_notebook_html", "write_page"]

_CHECKED = 'the <a href="#check">check above</a> answers it.'
_UNCHECKED = (
    "only a check answers it, and none was made here; <code>sightline look --check</code>, in Python "
    "<code>seen.check()</code>, makes one."
)


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    def cells(row: Sequence[object], tag: str) -> str:
        return "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in row)

    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f"<table><thead><tr>{cells(header, 'th')}</tr></thead><tbody>{body}</tbody></table>"


def _chart(title: str, curves: Sequence[PageCurve]) -> str:
    """A line chart of one group of curves as inline SVG, with its legend and areas in words."""
    scores = [s for curve in curves for s in curve.scores]
    low, high = min(0.0, *scores), max(1e-9, *scores)
    lines, legend = [], []
    for number, curve in enumerate(curves):
        if len(curve.fractions) != len(curve.scores) or not np.isfinite([*curve.fractions, *curve.scores]).all():
            raise ValueError(f"curve {curve.name!r}: fractions and scores are finite and as many as each other")
        points = " ".join(
            f"{40 + 300 * x:.1f},{150 - 130 * (y - low) / (high - low):.1f}"
            for x, y in zip(curve.fractions, curve.scores, strict=True)
        )
        lines.append(f'<polyline class="c{number % 4}" points="{points}"/>')
        area = "" if curve.auc is None else f" <b>{curve.auc:.3f}</b>"
        legend.append(f'<li class="c{number % 4}">{html.escape(curve.name)}{area}</li>')
    axes = (
        f'<path class="axis" d="M40 20V150H340"/><text x="34" y="24">{high:.2g}</text>'
        f'<text x="34" y="153">{low:.2g}</text>'
        '<text x="40" y="168" class="m">0%</text><text x="190" y="168" class="m">share of the image</text>'
        '<text x="340" y="168" class="m">100%</text>'
    )
    name = html.escape(title)
    return (
        f'<figure class="chart"><figcaption>{name}</figcaption><svg viewBox="0 0 362 176" role="img" '
        f'aria-label="{name} curves">{axes}{"".join(lines)}</svg><ul>{"".join(legend)}</ul></figure>'
    )


def _answer(data: PageData) -> str:
    bars = "".join(
        f'<li><span>{html.escape(spoken(label))}</span><i style="--p:{float(p):.2%}"></i><b>{float(p):.1%}</b></li>'
        for label, p in data.answers
    )
    said = f'<p class="said">{html.escape(data.text)}</p>' if data.text else ""
    said += f"<ol>{bars}</ol>" if bars else ""
    return f'<section id="answer"><h2>The answer</h2>{said}</section>' if said else ""


def _check(data: PageData) -> str:
    groups = dict.fromkeys(curve.group for curve in data.curves)
    charts = "".join(_chart(name, [c for c in data.curves if c.group == name]) for name in groups)
    found = "".join(f"<p>{html.escape(line)}</p>" for line in data.findings)
    if not charts and not found:
        return ""
    return f'<section id="check"><h2>The check</h2><div class="charts">{charts}</div>{found}</section>'


def _site_table(sites: Sequence[PageSite]) -> str:
    header = ("#", "module", "layer", "kind", "heads", "queries × keys", "grid", "recorded")
    rows = []
    for number, site in enumerate(sites):
        grid = site.grid or (site.maps.shape[1:] if site.maps is not None else ())
        kept = [site.query] * (site.maps is not None) + ["patch rows"] * (site.patch_rows is not None)
        shape = f"{site.queries} × {site.keys}"
        place = " × ".join(map(str, grid)) or "–"
        rows.append((number, site.name, site.layer, site.kind, site.heads, shape, place, ", ".join(kept) or "–"))
    return _table(header, rows)


def _sections(data: PageData, notes: Sequence[str]) -> dict[str, str]:
    """The parts of the page that need no script, as escaped HTML by their name in the template."""
    quote = html.escape
    extra = "".join(
        f'<figure><img src="{data_uri(photograph(p), "PNG")}" alt="{quote(caption)}">'
        f"<figcaption>{quote(caption)}</figcaption></figure>"
        for caption, p in data.pictures
    )
    versions = " · ".join(f"{quote(name)} {quote(version)}" for name, version in data.versions.items())
    return {
        "title": quote(data.title),
        "model": quote(data.model),
        "answer": _answer(data),
        "check": _check(data),
        "pictures": f'<section id="pictures">{extra}</section>' if extra else "",
        "sites": _site_table(data.sites),
        "count": str(len(data.sites)),
        "notes": "".join(f"<li>{quote(note)}</li>" for note in [*data.notes, *notes]),
        "command": f"<p>Made by <code>{quote(data.command)}</code></p>" if data.command else "",
        "versions": f"<p>{versions}</p>" if versions else "",
        "small_print": quote(SMALL_PRINT),
        "whether_checked": _CHECKED if data.curves or data.findings else _UNCHECKED,
    }


def page(data: PageData, *, limit: int = LIMIT) -> str:
    """The whole page as one HTML string that needs no network, kept near `limit` bytes.

    Rows of single patches go in from the last site to the first while they fit; the page says what did not.
    Raises ValueError for NaN, and for maps, rows and grids that disagree.
    """
    body, notes = payload(data, limit)
    template = resources.files("sightline.lens").joinpath("page.html").read_text("utf-8")
    script = template[template.index("<script>") + 8 : template.rindex("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text = json.dumps(body, separators=(",", ":"), allow_nan=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    parts = {**_sections(data, notes), "data": text, "digest": digest}
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def write_page(path: str | Path, data: PageData, *, limit: int = LIMIT) -> Path:
    """Writes `page(data)` to a file, UTF-8, and returns its path."""
    Path(path).write_text(page(data, limit=limit), encoding="utf-8")
    return Path(path)


def to_notebook_html(
    picture: Image.Image | None, header: Sequence[str], rows: Sequence[Sequence[object]], *, heading: str = ""
) -> str:
    """A picture and a small table for a notebook cell (`_repr_html_`), escaped and self-contained."""
    image = ""
    if picture is not None:
        small = photograph(picture)
        small.thumbnail((720, 720), Image.Resampling.LANCZOS)
        image = f'<img src="{data_uri(small)}" alt="attention map" style="max-width:100%;border-radius:6px">'
    head = f"<strong>{html.escape(heading)}</strong>" if heading else ""
    return f'<div style="display:grid;gap:8px;max-width:760px">{head}{image}{_table(header, rows)}</div>'
