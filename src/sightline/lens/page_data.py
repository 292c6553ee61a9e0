"""What a page shows, as plain dataclasses, and how its maps are packed into text within a size limit."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from sightline.lens.paint import COLOURS, NOT_FINITE, Number, as_map, colour_table, photograph

LIMIT = 6 * 2**20


@dataclass(frozen=True, kw_only=True)
class PageSite:
    """One attention site on the page.

    `maps` (heads, h, w) is one query's attention over the image; `query` says whose.  `patch_rows` is each
    patch's attention over the patches, row-major: (heads, h*w, h*w), or the mean over heads (h*w, h*w).  Where
    `maps` is missing it is the mean of `patch_rows` over patches; a site with neither is only in the table.
    `outside` names what else a row can read ("class token", "register 1"): its share is 1 minus the map's sum.
    """

    name: str
    layer: int
    kind: str = "self"
    heads: int = 1
    queries: int = 0
    keys: int = 0
    maps: np.ndarray | Tensor | None = None
    query: str = "class token"
    patch_rows: np.ndarray | Tensor | None = None
    grid: tuple[int, int] | None = None
    outside: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class PageCurve:
    """One curve of a check: the score at each fraction of the image deleted or inserted, and its area."""

    name: str
    fractions: Sequence[Number] | np.ndarray
    scores: Sequence[Number] | np.ndarray
    auc: Number | None = None
    group: str = "deletion"


@dataclass(frozen=True, kw_only=True)
class PageData:
    """Everything a page shows.  All but the title is optional; all text is escaped.

    combined: named (h, w) maps such as {"rollout": ..., "gradient-weighted": ...}; the first is what the page
    opens on.  opens: the number of a site and a head ("mean", "max" or its number) on which the page opens instead;
    where heads did not fit, on the first combined map after all.  words: (text, (h, w) map, score or None) of each
    generated or read word.  answers: (label, probability), best first.  curves and findings: what the check found, as
    curves and as sentences.
    pictures: (caption, picture), such as `view.matrix` of text.  command: what made the page.
    """

    title: str
    model: str = ""
    image: Image.Image | None = None
    sites: Sequence[PageSite] = ()
    combined: Mapping[str, np.ndarray | Tensor] = field(default_factory=dict)
    opens: tuple[int, str | int] | None = None
    words: Sequence[tuple[str, np.ndarray | Tensor, Number | None]] = ()
    text: str = ""
    answers: Sequence[tuple[str, Number]] = ()
    curves: Sequence[PageCurve] = ()
    findings: Sequence[str] = ()
    pictures: Sequence[tuple[str, Image.Image]] = ()
    notes: Sequence[str] = ()
    command: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)


def _array(values: np.ndarray | Tensor) -> np.ndarray:
    return np.asarray(values.detach().double().cpu() if isinstance(values, Tensor) else values, dtype=np.float64)


def pack(values: np.ndarray | Tensor, bits: int = 16) -> dict[str, Any]:
    """Maps (..., cells) in base64: value = low + span (code / top)^2, top = 2^bits - 1, low and span per map.

    The square keeps small shares apart: near zero the step is span / top^2, at the hottest cell 2 span / top.
    Codes and scales are little-endian.  Raises ValueError for NaN or infinite values.
    """
    values = _array(values)
    if not np.isfinite(values).all():
        raise ValueError(f"a map for the page holds values that are {NOT_FINITE}")
    low = np.minimum(values.min(axis=-1), 0).astype("<f4").astype(np.float64)
    span = np.maximum(values.max(axis=-1) - low, 0).astype("<f4").astype(np.float64)
    place = (values - low[..., None]) / np.where(span > 0, span, 1)[..., None]
    codes = np.rint(np.sqrt(np.clip(place, 0, 1)) * (2**bits - 1)).astype("<u2" if bits == 16 else "u1")
    code64 = [base64.b64encode(array.tobytes()).decode() for array in (codes, low.astype("<f4"), span.astype("<f4"))]
    return {"shape": list(values.shape), "bits": bits, "data": code64[0], "low": code64[1], "span": code64[2]}


def data_uri(image: Image.Image, kind: str = "JPEG") -> str:
    """The picture as a data URI, JPEG or PNG."""
    memory = io.BytesIO()
    image.save(memory, kind, **({"quality": 86} if kind == "JPEG" else {"optimize": True}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(memory.getvalue()).decode()}"


def _fits(shape: Sequence[int], bits: int = 8) -> int:
    """Bytes of packed maps of this shape, in base64 and with their scales."""
    return (int(np.prod(shape)) * bits // 8 + int(np.prod(shape[:-1])) * 8) * 4 // 3 + 200


def _maps_of(site: PageSite) -> np.ndarray | None:
    """The site's (heads, h, w) maps; ValueError where its parts disagree."""
    rows = site.patch_rows
    maps = None if site.maps is None else _array(site.maps)
    if maps is not None and maps.ndim != 3:
        raise ValueError(f"{site.name}: maps have the shape (heads, h, w), not {maps.shape}")
    grid = site.grid or (maps.shape[1:] if maps is not None else None)
    if maps is not None and maps.shape[1:] != tuple(grid or ()):
        raise ValueError(f"{site.name}: maps of {maps.shape[1:]} do not lie on the grid {grid}")
    if rows is None:
        return maps
    if grid is None:
        raise ValueError(f"{site.name}: patch_rows need the grid (h, w) that they lie on")
    cells = grid[0] * grid[1]
    if rows.ndim not in (2, 3) or tuple(rows.shape[-2:]) != (cells, cells):
        raise ValueError(f"{site.name}: patch_rows on the grid {grid} end in {cells} x {cells}, not {rows.shape}")
    if maps is None:
        maps = _array(rows if rows.ndim == 3 else rows[None]).mean(axis=1).reshape(-1, *grid)
    return maps


def _rows_that_fit(sites: Sequence[PageSite], room: int) -> tuple[dict[int, dict[str, Any]], list[str]]:
    """Packed patch rows by site number, and notes: head means from the last site on, then all heads."""
    given = [number for number in reversed(range(len(sites))) if sites[number].patch_rows is not None]
    shapes: dict[int, tuple[int, ...]] = {}
    for whole in (False, True):
        for number in given:
            full = tuple(sites[number].patch_rows.shape)  # type: ignore[union-attr]
            shape = full if whole else full[-2:]
            cost = _fits(shape) - (_fits(shapes[number]) if number in shapes else 0)
            if (number in shapes) == whole and cost <= room:
                room -= cost
                shapes[number] = shape
    packed, averaged = {}, 0
    for number, shape in shapes.items():
        rows = _array(sites[number].patch_rows)  # type: ignore[arg-type]
        averaged += rows.ndim > len(shape)
        rows = rows.mean(axis=0) if rows.ndim > len(shape) else rows
        packed[number] = pack(rows.reshape(-1, *shape[-2:]), 8)
    notes = []
    if len(shapes) < len(given):
        notes.append(f"Rows of single patches are here for {len(shapes)} of {len(given)} layers, as many as fit.")
    if averaged:
        notes.append(f"In {averaged} layers the rows of single patches are means over heads, to save room.")
    return packed, notes


def _site_data(data: PageData, limit: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Every site that has maps, packed as finely as fits, with the rows that fit, and notes on the rest."""
    shown = [(site, maps) for site in data.sites if (maps := _maps_of(site)) is not None]
    need = [sum(_fits((m.shape[0], m[0].size), bits) for _, m in shown) for bits in (16, 8)]
    bits, per_head = (16 if need[0] <= limit / 3 else 8), need[1] <= limit * 2 / 3
    sites: list[dict[str, Any]] = []
    for site, maps in shown:
        kept = (maps if per_head else maps.mean(axis=0, keepdims=True)).reshape(-1, maps[0].size)
        limit -= _fits(kept.shape, bits)
        query = site.query if site.maps is not None else "average patch"
        about = {"name": site.name, "layer": site.layer, "kind": site.kind, "query": query}
        place = {"grid": list(maps.shape[1:]), "outside": list(site.outside)}
        sites.append({**about, **place, "maps": pack(kept, bits), "rows": None})
    rows, notes = _rows_that_fit([site for site, _ in shown], limit)
    for number, packed in rows.items():
        sites[number]["rows"] = packed
    if not per_head:
        notes.append("To keep this page small, only the mean over heads of each layer is in it.")
    return sites, notes


def _opening(data: PageData, sites: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The state in which the page opens, as its script has it; None where it opens on its first map."""
    if data.opens is None:
        return None
    number, head = data.opens
    drawn = [n for n, site in enumerate(data.sites) if site.maps is not None or site.patch_rows is not None]
    if number not in drawn:
        raise ValueError(f"a page cannot open on site {number}: it has maps of {drawn}")
    place = drawn.index(number)
    kept = sites[place]["maps"]["shape"][0]
    if kept == 1 < data.sites[number].heads and head != "mean":  # only their mean fitted
        return {"site": place}
    return {"method": "site", "site": place, "head": head}


def payload(data: PageData, limit: int) -> tuple[dict[str, Any], list[str]]:
    """The data block of the page's script, kept near `limit` bytes, and notes on what did not fit."""
    picture = ""
    if data.image is not None:
        image = photograph(data.image)
        image.thumbnail((1024, 1024), Image.Resampling.LANCZOS)
        picture = data_uri(image)
    flat = {name: as_map(heat) for name, heat in data.combined.items()}
    words: list[dict[str, Any]] = []
    notes: list[str] = []
    left = limit - len(picture) - 80_000 - sum(_fits((heat.size,), 16) for heat in flat.values())
    for text, given, score in data.words:
        heat = as_map(given)
        left -= _fits((heat.size,))
        if left < limit / 4:
            notes.append(f"Maps of the first {len(words)} of {len(data.words)} words fit in this page.")
            break
        words.append(
            {
                "text": text,
                "score": None if score is None else float(score),
                "grid": list(heat.shape),
                "maps": pack(heat.reshape(1, -1), 8),
            }
        )
    sites, more = _site_data(data, max(left, 0))
    combined = [
        {"name": name, "grid": list(heat.shape), "maps": pack(heat.reshape(1, -1))} for name, heat in flat.items()
    ]
    tables = {name: base64.b64encode(colour_table(name).tobytes()).decode() for name in COLOURS}
    body = {"title": data.title, "image": picture, "sites": sites, "combined": combined, "words": words}
    return body | {"opens": _opening(data, sites), "colours": tables}, notes + more
