"""How the keys of one attention site lie on the image."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """How the keys of one attention site lie on the image: `offset`, `prefix`, then patches, then `suffix`.

    Patch (frame f, row y, column x) is the key `offset + prefix + order[(f * height + y) * width + x]`, with
    `order` the identity where it is None (an order may skip keys that are no patch, as the end-of-row tokens
    of LLaVA-NeXT).  `tiles` are the layouts of further views of the same image, or further images, in the
    same sequence.
    """

    height: int
    width: int
    prefix: int = 0
    suffix: int = 0
    frames: int = 1
    offset: int = 0
    order: tuple[int, ...] | None = None
    prefix_names: tuple[str, ...] = ()
    tiles: tuple["Layout", ...] = ()

    def __post_init__(self) -> None:
        if min(self.height, self.width, self.frames) < 1 or min(self.prefix, self.suffix, self.offset) < 0:
            raise ValueError(f"a layout needs sizes of at least 1 and counts of at least 0, not {self.describe()}")
        order = range(self.patches) if self.order is None else self.order
        if len(order) != self.patches or len(set(order)) != self.patches or min(order) < 0:
            raise ValueError(
                f"order must name a different key for each of the {self.patches} patches, row by row; "
                f"it has {len(order)} entries, {len(set(order))} different"
            )
        if not self.prefix_names and self.prefix:
            object.__setattr__(self, "prefix_names", tuple(f"special {i + 1}" for i in range(self.prefix)))
        if len(self.prefix_names) != self.prefix:
            raise ValueError(f"{self.prefix} prefix tokens but {len(self.prefix_names)} names: {self.prefix_names}")

    @property
    def patches(self) -> int:
        """Number of patches, over all frames."""
        return self.frames * self.height * self.width

    @property
    def class_token(self) -> int | None:
        """The key of the class token; None where the tokens before the patches are of other kinds."""
        first = self.prefix_names[0] if self.prefix else ""
        return self.offset if first.startswith(("class", "special")) else None

    @property
    def end(self) -> int:
        """One past the last key that is a patch."""
        return self.offset + self.prefix + (self.patches if self.order is None else max(self.order) + 1)

    @property
    def tokens(self) -> int:
        """Number of keys of the whole row."""
        return self.end + self.suffix

    def map(self, row: Float[Tensor, "*rows keys"]) -> Tensor:
        """The row's patches on their grid, shape (*rows, height, width), or (*rows, frames, height, width)
        for a video.

        A row longer than the layout is accepted where the image lies inside a longer sequence (it grows while
        a language model writes).  Raises ValueError where the row is of another length.
        """
        grows = self.offset > 0 or self.suffix > 0
        if row.shape[-1] != self.tokens and not (grows and row.shape[-1] >= self.end):
            raise ValueError(f"a row of {row.shape[-1]} keys does not fit {self.describe()}, which has {self.tokens}")
        return self._unflatten(row[..., self.positions.to(row.device)])

    def _unflatten(self, patches: Tensor) -> Tensor:
        frames = (self.frames,) if self.frames > 1 else ()
        return patches.reshape(*patches.shape[:-1], *frames, self.height, self.width)

    @property
    def positions(self) -> Tensor:
        """The key of every patch, row by row, shape (frames * height * width,)."""
        order = torch.arange(self.patches) if self.order is None else torch.tensor(self.order)
        return order + self.offset + self.prefix

    def special(self, row: Float[Tensor, "*rows keys"]) -> Float[Tensor, "*rows prefix"]:
        """The row's weight on each prefix token, in the order of `prefix_names`."""
        return row[..., self.offset : self.offset + self.prefix]

    def index_of(self, y: int, x: int, frame: int = 0) -> int:
        """The key of the patch in row y, column x.  Raises ValueError outside the grid."""
        if not (0 <= y < self.height and 0 <= x < self.width and 0 <= frame < self.frames):
            raise ValueError(f"patch (y={y}, x={x}, frame={frame}) is outside {self.describe()}")
        place = (frame * self.height + y) * self.width + x
        return self.offset + self.prefix + (place if self.order is None else self.order[place])

    def index_of_pixel(self, px: int | float, py: int | float, image_size: tuple[int, int], frame: int = 0) -> int:
        """The key of the patch under pixel column px, row py of an image of size (height, width)."""
        height, width = image_size
        if not (0 <= px < width and 0 <= py < height):
            raise ValueError(f"pixel (x={px}, y={py}) is outside an image of width {width} and height {height}")
        return self.index_of(int(py * self.height / height), int(px * self.width / width), frame)

    def describe(self) -> str:
        """One line for a person: the grid, and what stands before and after it."""
        text = f"{self.height} x {self.width} patches"
        text = f"{self.frames} frames of {text}" if self.frames > 1 else text
        text += f" from key {self.offset}" if self.offset else ""
        text += f" after {', '.join(self.prefix_names)}" if self.prefix else ""
        text += f", {self.suffix} keys after them" if self.suffix else ""
        text += ", reordered" if self.order is not None else ""
        return text + (f", {len(self.tiles)} more views in the same sequence" if self.tiles else "")

    def __str__(self) -> str:
        shown = [f"height={self.height}, width={self.width}"]
        for name in ("prefix", "suffix", "frames", "offset"):
            if getattr(self, name) != (1 if name == "frames" else 0):
                shown.append(f"{name}={getattr(self, name)}")
        return f"Layout({', '.join(shown)})"


def at_positions(positions: Sequence[int], grid: tuple[int, int, int], total: int, prefix: int = 0) -> Layout:
    """The layout of an image whose tokens stand at these positions of a sequence of `total` tokens."""
    first, frames, (height, width) = positions[0] + prefix, grid[0], grid[1:]
    relative = [p - first for p in positions[prefix:]]
    order = None if relative == list(range(len(relative))) else tuple(relative)
    return Layout(height, width, prefix, max(total - positions[-1] - 1, 0), frames, first - prefix, order)
