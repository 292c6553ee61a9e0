"""The generated world with a class for each pixel: three to six things on their ground, known exactly.

Shape and material tell a class, color and size do not: a small network cannot name a thing by one pixel's color.
"""

from functools import cache

import numpy as np
from jaxtyping import UInt8

from sightline.data.pixel_labels import from_hex
from sightline.data.scenes import Scenes
from sightline.data.scenes.graph import MATERIALS, SHAPES
from sightline.data.world_pictures import BLOCK, SIDE, count_of

GROUND = "ground"
KINDS = tuple((material, shape) for material in MATERIALS for shape in SHAPES)
CLASSES = (GROUND, *(f"{material} {shape}" for material, shape in KINDS))
PALETTE = from_hex("404048 e07040 d0b030 50a050 4090d0 8060c0 d060a0")


class WorldPixels:
    """Draws COUNT scenes in `split` "train" and a tenth of that (at least 10) in "val", which are others.

    `image(i)` is scene i as (64, 64, 3) bytes, `labels(i)` the class of what fills most of each pixel.  Scenes are
    drawn with their neighbours when first asked for and then kept, 16 KB each, as long as the process runs.  Raises
    ValueError for a count that is no number of 10 or more, and for another split.
    """

    def __init__(self, count: str, split: str = "train") -> None:
        self.classes, self.palette = CLASSES, PALETTE
        self.scenes = Scenes(split=split, size=SIDE, count=count_of(count, split))

    def __len__(self) -> int:
        return self.scenes.count

    def image(self, index: int) -> UInt8[np.ndarray, "64 64 3"]:
        return self._drawn(index)[0]

    def labels(self, index: int) -> UInt8[np.ndarray, "64 64"]:
        return self._drawn(index)[1]

    def _drawn(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if not 0 <= index < len(self):
            raise IndexError(f"scene {index}: there are scenes 0 to {len(self) - 1}")
        images, labels = _block(self.scenes.split.name, index // BLOCK)
        return images[index % BLOCK], labels[index % BLOCK]


@cache
def _block(split: str, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Scenes `block * BLOCK` and on, which are the same whatever the count: pictures and classes."""
    first = block * BLOCK
    scenes = Scenes(split=split, size=SIDE, count=first + BLOCK)
    views = scenes.views(range(first, first + BLOCK))
    labels = np.zeros((BLOCK, SIDE, SIDE), dtype=np.uint8)
    for place in range(BLOCK):
        things = scenes.scene(first + place).things
        classes = [0, *(1 + KINDS.index((thing.material, thing.shape)) for thing in things)]
        labels[place] = np.array(classes, dtype=np.uint8)[views.owner[place].numpy() + 1]
    images = views.images.permute(0, 2, 3, 1).contiguous().numpy()
    images.flags.writeable = labels.flags.writeable = False  # they are everybody's
    return images, labels
