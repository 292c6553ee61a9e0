"""The page of a recording: its maps, methods, rows and check, gathered for `page.write_page`."""

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sightline.lens.heat import Placed, can_roll, class_maps, heat, image_sites
from sightline.lens.page import PageCurve, PageData, PageSite, write_page
from sightline.lens.recording import Recording

MOST_CELLS = 1024  # hover rows of larger grids would make a page of many megabytes


def write_report(
    recording: Recording,
    path: str | Path,
    picture: Any,
    *,
    title: str = "",
    command: str = "",
    score: Tensor | None = None,
    answers: Sequence[tuple[str, float]] = (),
    notes: Sequence[str] = (),
    pictures: Sequence[tuple[str, Image.Image]] = (),
    shown: tuple[str, Tensor] | None = None,
    chosen: tuple[int, str | int] | None = None,
    item: int = 0,
) -> Path:
    """Writes the page of one image of a recording and returns its path.

    `score` adds the gradient-weighted maps, `answers` the model's labels with probabilities, `pictures` captions with
    pictures, `shown` the name and the (h, w) map on which the page opens.  Where it is the map of one layer and head,
    `chosen`, the page opens on these, its controls too.  A check made with `recording.check(...)` before is shown with
    its curves.
    """
    sites = image_sites(recording)
    combined = _combined(recording, sites, score, item)
    if shown is not None:  # once, where it is one of these
        first = shown[1].detach().cpu().numpy()
        combined = {shown[0]: first} | {name: one for name, one in combined.items() if not np.array_equal(one, first)}
    curves, findings = _checked(recording.checked.get(item))
    drawn = [_page_site(p, item) for p in sites]
    data = PageData(
        title=title or "Where it looked",
        model=type(recording.model).__name__,
        image=picture,
        sites=drawn,
        opens=_opening(drawn, shown, chosen),
        combined=combined,
        answers=answers,
        curves=curves,
        findings=findings,
        notes=notes,
        pictures=pictures,
        command=command,
        versions={"sightline": _own_version(), "torch": torch.__version__, "python": platform.python_version()},
    )
    return write_page(path, data)


def _combined(recording: Recording, sites: list[Placed], score: Tensor | None, item: int) -> dict[str, np.ndarray]:
    maps = {}
    if can_roll(sites, None):
        maps["rollout"] = heat(recording, method="rollout", item=item)
    if score is not None:
        maps["gradient-weighted"] = heat(recording, method="gradient", score=score, item=item)
        if can_roll(sites, None):
            maps["gradient rollout"] = heat(recording, method="grad_rollout", score=score, item=item)
    return {name: value.detach().cpu().numpy() for name, value in maps.items()}


def _opening(
    sites: Sequence[PageSite], shown: tuple[str, Tensor] | None, chosen: tuple[int, str | int] | None
) -> tuple[int, str | int] | None:
    """The layer and head that were chosen, counted from 0, where their map on the page is the one that is shown."""
    if shown is None or chosen is None:
        return None
    layer, head = chosen[0] % len(sites), chosen[1]
    if sites[layer].maps is None or head == "min":  # the page has no smallest of all heads
        return None
    maps = np.asarray(sites[layer].maps)
    if isinstance(head, int):
        head %= len(maps)
        one = maps[head]
    else:
        one = maps.max(axis=0) if head == "max" else maps.mean(axis=0)
    same = np.allclose(one, shown[1].detach().cpu().numpy(), rtol=1e-3, atol=1e-7)
    return (layer, head) if same else None


def _page_site(placed: Placed, item: int) -> PageSite:
    site, layout = placed.site, placed.layout
    found = class_maps(placed, item)
    return PageSite(
        name=site.name, layer=site.layer, kind=site.kind, heads=site.heads, queries=site.queries, keys=site.keys,
        maps=None if found is None else found[0], query="class token" if found is None else found[1],
        patch_rows=_patch_rows(placed, item), grid=(layout.height, layout.width), outside=layout.prefix_names,
    )  # fmt: skip


def _patch_rows(placed: Placed, item: int) -> np.ndarray | None:
    """(h*w, h*w): each patch's attention over the patches, mean over heads; None where rows are missing or too many."""
    site, layout = placed.site, placed.layout
    cells = layout.height * layout.width
    square = site.kind != "cross" and site.queries == site.keys and site.rows == site.queries
    if not square or layout.frames > 1 or cells > MOST_CELLS:
        return None
    positions = layout.positions
    rows = torch.cat([block[item].mean(0).float().cpu() for _, block in site.blocks()])
    return rows[positions][:, positions].numpy()


def _checked(checked: Any) -> tuple[list[PageCurve], list[str]]:
    if checked is None:
        return [], []
    return checked.page_curves(), [checked.effect.summary(), checked.curves.summary()]


def _own_version() -> str:
    try:
        return version("sightline")
    except PackageNotFoundError:
        return "not installed, run from its sources"
