"""From recorded attention to one map on the image: which site, which row, which heads, which method."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from sightline.lens.gradients import grad_rollout, grad_weighted
from sightline.lens.layout import Layout
from sightline.lens.recording import Recording
from sightline.lens.rollout import rollout
from sightline.lens.select import Row
from sightline.lens.site import Site

Method = Literal["auto", "raw", "rollout", "gradient", "grad_rollout"]
Query = str | int | tuple[int, int] | Row | None


@dataclass(frozen=True)
class Placed:
    """A site whose keys lie on the image, and how."""

    site: Site
    layout: Layout


def image_sites(recording: Recording) -> list[Placed]:
    """The sites of the recording whose keys lie on the image, in the order in which they ran.

    Raises ValueError with the reason of the first site where there is none.
    """
    placed, reason = [], None
    for site in recording.only_pass():
        try:
            placed.append(Placed(site, site.grid))
        except ValueError as error:
            reason = reason or f"{site.name}: {error}"
    if not placed:
        raise ValueError(f"no attention site of {type(recording.model).__name__} lies on an image: {reason}")
    return placed


def resolve_query(placed: Placed, query: Query) -> int | None:
    """The token whose row is meant: None stands for the mean over all rows.

    "class" is the class token (an error where there is none), (y, x) the patch in that row and column, an integer a
    token, "mean" all rows.  None is the class token where there is one, and otherwise the mean.
    """
    site, layout = placed.site, placed.layout
    on_grid = site.kind != "cross" and site.queries == site.keys
    if query is None:
        return layout.class_token if on_grid else None
    if isinstance(query, Row):
        query = "class" if query.position == 0 else query.position
    if query == "class":
        if layout.class_token is None or not on_grid:
            raise ValueError(
                f"{site.name} has no class token ({layout.describe()}); ask for query=(row, column) of a patch, "
                'a token index, or query="mean"'
            )
        return layout.class_token
    if query == "mean":
        return None
    if isinstance(query, tuple):
        return layout.index_of(*query)
    if isinstance(query, int):
        return query % site.queries if -site.queries <= query < site.queries else query
    raise ValueError(f'query {query!r}: give "class", "mean", a token index, or (row, column) of a patch')


def fuse_heads(
    weights: Float[Tensor, "batch heads *rest"], head: str | int, where: str = "this layer"
) -> Float[Tensor, "batch *rest"]:
    """Mean, max or min over heads, or one head; ValueError, naming the layer as `where`, for a head there is not."""
    if head == "mean":
        return weights.mean(1)
    if head in ("max", "min"):
        return weights.amax(1) if head == "max" else weights.amin(1)
    if isinstance(head, int) and -weights.shape[1] <= head < weights.shape[1]:
        return weights[:, head]
    count = weights.shape[1]
    choices = f'"mean", "max", "min" or a number from 0 to {count - 1}'
    raise ValueError(f"head {head!r}: {where} has {count} heads; give {choices}")


def mean_row(site: Site) -> Float[Tensor, "batch heads keys"]:
    """Mean over the kept rows, without holding them all."""
    total = sum(block.sum(2) for _, block in site.blocks())
    if not isinstance(total, Tensor):
        raise ValueError(f"{site.name} kept no rows")
    if site.rows != site.queries and not site.stepped:
        raise ValueError(
            f"{site.name} kept {site.rows} of {site.queries} rows, so the mean over all of them is not known; record "
            "with queries=None, or ask for the row of one query that was kept"
        )
    return total / site.rows


def heat(
    recording: Recording,
    *,
    method: Method = "auto",
    layer: int = -1,
    head: str | int = "mean",
    query: Query = None,
    item: int = 0,
    score: Tensor | None = None,
) -> Float[Tensor, "height width"]:
    """One attention map on the image's token grid, non-negative.

    method   "raw": rows of one layer.  "rollout": Abnar & Zuidema through all layers.  "gradient": one layer weighted
             by the gradient of `score`.  "grad_rollout": Chefer et al. through all layers.  "auto": rollout where the
             model has a class token and all rows of its layers were kept, else raw.
    layer    which of the sites on the image, counted from 0 or from the end; the last one by default.
    query    whose attention: see `resolve_query`.  item: which image of the batch.
    Raises ValueError where a choice does not fit what was recorded.
    """
    if method not in ("auto", "raw", "rollout", "gradient", "grad_rollout"):
        raise ValueError(f"method {method!r}: choose auto, raw, rollout, gradient or grad_rollout")
    sites = image_sites(recording)
    if not -len(sites) <= layer < len(sites):
        raise ValueError(f"layer {layer}: {len(sites)} sites lie on the image, 0 to {len(sites) - 1}")
    if method == "auto":
        method = automatic(sites, query, layer, head)
    if method != "raw" and head != "mean":
        raise ValueError(f'head={head!r} belongs to method="raw"; {method} fuses heads in its own way')
    if method in ("rollout", "grad_rollout") and layer != -1:
        raise ValueError(f'layer={layer} belongs to method="raw" or "gradient"; {method} goes through all layers')
    placed = sites[layer]
    if method in ("gradient", "grad_rollout") and score is None:
        raise ValueError(f"method {method!r} needs score=, one number of the model's output such as logits[0, 3]")
    row: Tensor
    if method == "raw":
        token = resolve_query(placed, query)
        kept = mean_row(placed.site) if token is None else placed.site.row(token)
        row = fuse_heads(kept, head, where=f"layer {layer % len(sites)} ({placed.site.name})")
    elif method == "gradient":
        weighted = grad_weighted(placed.site, score)  # type: ignore[arg-type]
        token = resolve_query(placed, query)
        index = placed.site.query_index
        found = index.tolist()
        if token is not None and token not in found:
            raise ValueError(f"{placed.site.name}: row {token} was not kept; record with queries=None")
        row = weighted.mean(1) if token is None else weighted[:, found.index(token)]
    else:
        chain, whole = chain_of(sites)
        token = resolve_query(whole, query)
        if method == "rollout":
            rolled = rollout(chain, rows=token)
        else:
            rolled = grad_rollout(chain, score, rows=token, identity=False)  # type: ignore[arg-type]
        row, placed = rolled.mean(1), whole
    if not -len(row) <= item < len(row):
        raise ValueError(f"item {item}: the batch has {len(row)} images, 0 to {len(row) - 1}")
    return on_grid(placed.layout, row[item]).float()


def on_grid(layout: Layout, row: Float[Tensor, " keys"]) -> Float[Tensor, "height width"]:
    """The row's patches as a map; of a video, the mean over its frames."""
    laid = layout.map(row)
    return laid.mean(0) if laid.dim() == 3 else laid


def chain_of(sites: Sequence[Placed]) -> tuple[list[Site], Placed]:
    """The self-attention sites that can be rolled out together: those of the last one's family of tokens."""
    whole = [p for p in sites if p.site.kind != "cross" and p.site.windows is None]
    if not whole:
        raise ValueError("rollout needs self-attention over the whole image; use method='raw'")
    last = whole[-1]
    return [p.site for p in whole if p.site.keys == last.site.keys], last


def automatic(sites: Sequence[Placed], query: Query, layer: int, head: str | int) -> Method:
    """What method "auto" stands for: rollout where it is defined, unless one layer or head was asked for."""
    return "rollout" if layer == -1 and head == "mean" and can_roll(sites, query) else "raw"


def can_roll(sites: Sequence[Placed], query: Query) -> bool:
    """Whether rollout is defined: a class token asked for, all rows kept, the same tokens in every layer."""
    whole = [p for p in sites if p.site.kind != "cross"]
    if not whole or any(p.site.windows is not None or p.site.rows < p.site.queries for p in whole):
        return False
    if len({(p.site.queries, p.site.keys) for p in whole}) > 1 or any(p.site.stepped for p in whole):
        return False
    return whole[-1].layout.class_token is not None and query in (None, "class")


def picture_of(pixels: Tensor) -> Image.Image:
    """What the model was given, as a picture: normalised pixels stretched back to 0..255.

    For display where the photograph itself was not handed over; colours are approximate.
    """
    frame = pixels[0].detach().float().cpu()
    if frame.dim() == 4:  # video: the first frame
        frame = frame[0] if frame.shape[1] == 3 else frame[:, 0]
    low, high = frame.amin((1, 2), keepdim=True), frame.amax((1, 2), keepdim=True)
    scaled = (frame - low) / (high - low).clamp_min(1e-6)
    return Image.fromarray((scaled * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())


def class_maps(placed: Placed, item: int = 0) -> tuple[Any, str] | None:
    """(heads, h, w) maps of the class token's row, or of the mean row where there is none, and whose they are."""
    try:
        token = resolve_query(placed, None)
        row = mean_row(placed.site) if token is None else placed.site.row(token)
    except ValueError:
        return None  # that row was not kept; the page lists the site without a map
    laid = placed.layout.map(row[item])
    laid = laid.mean(1) if laid.dim() == 4 else laid
    return laid.float().cpu().numpy(), "all tokens, averaged" if token is None else "class token"
