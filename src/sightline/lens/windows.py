"""Windowed attention put back in place: rows over a window become rows over the whole grid, zero outside the
window.

For models that hold their windows in the batch dimension: Swin, Swin v2, Donut (cyclic shift and padding),
SAM and ViTDet (padding).  Qwen2.5-VL, which makes one call per window, needs none of this: its calls laid
side by side are one attention over tokens in window order, and `infer_layout` gives that order.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sightline.lens.layout import Layout
from sightline.lens.place import cells, image_shape
from sightline.lens.place_models import ancestors, find_vision, pair, setting
from sightline.lens.select import Choice, SiteInfo, resolve


@dataclass(frozen=True)
class Windows:
    """Which cell of a height x width grid each token of each window is.

    The grid is padded at its end to a multiple of the window, rolled by minus the shift, and cut (Liu et al.
    2021, section 3.2).  `index` (windows, tokens of one) holds the cell, counted row by row, or -1 for
    padding.
    """

    grid: tuple[int, int]
    size: tuple[int, int]
    shift: tuple[int, int] = (0, 0)
    path: str = ""
    index: Int[Tensor, "windows tokens"] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if min(*self.grid, *self.size) < 1:
            raise ValueError(f"windows of {self.size} on a grid of {self.grid}: every size must be at least 1")
        (height, width), (tall, wide) = self.grid, self.size
        cell = torch.arange(height * width).reshape(height, width)
        cell = torch.nn.functional.pad(cell, (0, -width % wide, 0, -height % tall), value=-1)
        cell = cell.roll((-self.shift[0], -self.shift[1]), (0, 1))
        parted = cell.reshape(cell.shape[0] // tall, tall, cell.shape[1] // wide, wide).transpose(1, 2)
        object.__setattr__(self, "index", parted.reshape(-1, tall * wide))

    @property
    def count(self) -> int:
        """Windows per image."""
        return self.index.shape[0]

    @property
    def tokens(self) -> int:
        """Cells of the whole grid: the queries and keys of the attention once it is put in place."""
        return self.grid[0] * self.grid[1]

    @property
    def layout(self) -> Layout:
        """The layout of rows that were put in place."""
        return Layout(*self.grid)

    def rows(self, choice: Choice) -> Int[Tensor, " rows"]:
        """The cells that a choice of queries means (`sightline.record(queries=...)`), counted over the whole
        grid."""
        if callable(choice):
            choice = choice(SiteInfo(self.path, 1, 1, self.tokens, self.tokens))
        kept = resolve(choice, self.tokens)
        every = torch.arange(self.tokens)
        return every[kept] if isinstance(kept, slice) else torch.tensor(kept, dtype=torch.long)

    def locate(self, queries: Int[Tensor, " rows"]) -> tuple[Int[Tensor, " rows"], Int[Tensor, " rows"]]:
        """The window of each cell, and its row in that window.  Raises ValueError for a cell outside the
        grid."""
        if queries.numel() and not (int(queries.min()) >= 0 and int(queries.max()) < self.tokens):
            raise ValueError(f"queries are cells 0 to {self.tokens - 1} of a {self.grid} grid, not {queries.tolist()}")
        flat = self.index.flatten()
        inverse = torch.empty(self.tokens, dtype=torch.long)
        inverse[flat[flat >= 0]] = (flat >= 0).nonzero().squeeze(1)
        at = inverse[queries.cpu()]
        return at // self.index.shape[1], at % self.index.shape[1]

    def place(
        self,
        weights: Float[Tensor, "calls heads tokens tokens"],
        batch: int,
        queries: Int[Tensor, " rows"] | None = None,
    ) -> Float[Tensor, "batch heads rows cells"]:
        """Rows over the whole grid for the cells `queries` (default: all); zero outside the query's window.

        `weights` holds batch * windows calls, the windows of one image together.  A row sums to 1 less what
        it gave to padding.  Raises ValueError where the sizes differ.
        """
        if weights.shape[0] != batch * self.count or weights.shape[-1] != self.index.shape[1]:
            raise ValueError(
                f"weights of shape {tuple(weights.shape)} are not {batch} images of {self.count} windows of "
                f"{self.index.shape[1]} tokens ({self.path})"
            )
        asked = torch.arange(self.tokens) if queries is None else queries
        window, row = (part.to(weights.device) for part in self.locate(asked))
        parted = weights.reshape(batch, self.count, *weights.shape[1:])
        picked = parted[:, window, :, row].permute(1, 2, 0, 3)  # (rows, batch, heads, tokens) before
        cell = self.index.to(weights.device)[window]
        whole = picked.new_zeros(*picked.shape[:-1], self.tokens + 1)  # padding goes to the last column, cut off
        target = torch.where(cell < 0, self.tokens, cell).expand(picked.shape)
        return whole.scatter(-1, target, picked)[..., : self.tokens]


def find_windows(
    model: nn.Module,
    path: str,
    batch_calls: int,
    queries: int,
    pixels: Tensor | Sequence[int] | None = None,
    inputs: Mapping[str, Any] | None = None,
) -> Windows | None:
    """The windows of the site at `path`, whose call had this batch size and this many queries; None without
    windows.

    The window and its shift are read from the nearest module that names them; the grid is the one, among
    those of the model's stages, that is cut into `batch_calls` windows.  Raises ValueError where not exactly
    one grid fits.
    """
    chain, shape = ancestors(model, path), image_shape(pixels)
    size, shift = _window(chain)
    if shape is None or pixels is None or math.prod(size) == 0 or math.prod(size) != queries:
        return None
    vision = find_vision(model, path, shape[0])
    if vision is None:
        return None
    images = int(pixels.shape[0] if isinstance(pixels, Tensor) else pixels[0])
    found: dict[Windows, int] = {}
    for step in [2**k for k in range(8)] if vision.hierarchical else [1]:
        for grid in reversed(cells(vision, shape[2], shape[3], step)):  # the padded one first
            if math.ceil(grid[0] / size[0]) * math.ceil(grid[1] / size[1]) * images == batch_calls:
                found.setdefault(Windows(grid, size, shift, path), step)
    return _pick(found, path, batch_calls, queries)


def _pick(found: dict[Windows, int], path: str, calls: int, queries: int) -> Windows:
    """The only fit, or the one of the stage that the path names: the cells of stage i are 2**i patches
    wide."""
    fits = list(found)
    stages = [int(part) for part in path.split(".") if part.isdigit()]
    if len(fits) > 1 and stages:
        fits = [windows for windows in fits if found[windows] == 2 ** stages[0]][:1] or fits
    if len(fits) != 1:
        raise ValueError(
            f"{calls} windows of {queries} tokens at {path!r}: {len(fits)} grids of the image fit"
            f"{''.join(f', {w.grid[0]} x {w.grid[1]}' for w in fits)}; pass the pixels that the model "
            f"itself was given, "
            "or leave this site out with sites="
        )
    return fits[0]


def _window(chain: Sequence[nn.Module]) -> tuple[tuple[int, int], tuple[int, int]]:
    """(size, shift) from the nearest module that has both, else the nearest with a size; (0, 0) without
    windows."""
    for names in (("window_size", "shift_size"), ("window_size",)):
        for module in chain:
            values = [setting(module, name) for name in names]
            if all(isinstance(value, int | tuple | list) for value in values):
                return pair(values[0]), pair(values[1]) if len(values) > 1 else (0, 0)
    return (0, 0), (0, 0)
