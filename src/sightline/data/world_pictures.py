"""The generated world as a labelled collection: scenes of one to three things, named after the one that looks largest.

So whatever learns from labelled pictures, or from pictures alone, learns in the generated world too, where it is known
which pixel belongs to what.
"""

from functools import cache

import numpy as np
from jaxtyping import UInt8

from sightline.data.scenes import Scenes
from sightline.data.scenes.graph import COLORS, SHAPES
from sightline.data.scenes.splits import HELD_OUT

SIDE = 64  # of the pictures, in pixels
BLOCK = 64  # scenes that are drawn together, three times as fast as one by one
THINGS = (1, 3)
HELD_SHARE = 10  # one held-out scene for so many training scenes
CLASSES = tuple(
    f"{color} {shape}" for color in sorted(COLORS) for shape in sorted(SHAPES) if (color, shape) not in HELD_OUT
)


class WorldPictures:
    """Draws COUNT scenes in `split` "train" and a tenth of that (at least 10) in "val", which are others.

    The label of a scene is the color and shape of the thing that looks largest (radius over distance).  `image(i)` is
    scene i as (64, 64, 3) bytes, drawn with its neighbours when first asked for and then kept, 12 KB each, as long as
    the process runs.  Raises ValueError for a count that is no number of 10 or more, and for another split.
    """

    classes = CLASSES

    def __init__(self, count: str, split: str = "train") -> None:
        number = count_of(count, split)
        self.scenes = Scenes(split=split, size=SIDE, count=number, objects=THINGS)
        self.labels = np.array([_largest(split, index) for index in range(number)], dtype=np.int64)

    def __len__(self) -> int:
        return self.scenes.count

    def image(self, index: int) -> UInt8[np.ndarray, "64 64 3"]:
        if not 0 <= index < len(self):
            raise IndexError(f"scene {index}: there are scenes 0 to {len(self) - 1}")
        return _drawn(self.scenes.split.name, index // BLOCK)[index % BLOCK]


def count_of(count: str, split: str) -> int:
    """Scenes of a split of `world:COUNT`; ValueError for a count below 10, no number, or another split."""
    if split not in ("train", "val"):
        raise ValueError(f"split must be 'train' or 'val', given {split!r}")
    if not count.isascii() or not count.isdigit() or int(count) < 10:
        raise ValueError(f"world:{count}: expected the number of scenes, 10 or more, such as world:10000")
    return int(count) if split == "train" else max(10, int(count) // HELD_SHARE)


@cache
def _largest(split: str, index: int) -> int:
    """The class of the thing that looks largest in a scene; who measures opens the training scenes once more."""
    scene = Scenes(split=split, count=index + 1, objects=THINGS).scene(index)
    seen = [thing.radius / distance for thing, distance in zip(scene.things, scene.distances, strict=True)]
    largest = scene.things[seen.index(max(seen))]
    return CLASSES.index(f"{largest.color} {largest.shape}")


@cache
def _drawn(split: str, block: int) -> UInt8[np.ndarray, "n 64 64 3"]:
    """Scenes `block * BLOCK` and on, which are the same whatever the count."""
    first = block * BLOCK
    scenes = Scenes(split=split, size=SIDE, count=first + BLOCK, objects=THINGS)
    return scenes.images(range(first, first + BLOCK)).permute(0, 2, 3, 1).contiguous().numpy()
