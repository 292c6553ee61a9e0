"""Pascal VOC 2012 (Everingham et al.), 21 classes with background; Pascal Context (Mottaghi et al. 2014), 60."""

import os
from pathlib import Path

from sightline.data.pixel_labels import PixelFiles, bit_palette, names_in

CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
CONTEXT_CLASSES = names_in(
    "background, aeroplane, bag, bed, bedclothes, bench, bicycle, bird, boat, book, bottle, building, bus, "
    "cabinet, car, cat, ceiling, chair, cloth, computer, cow, cup, curtain, dog, door, fence, floor, flower, "
    "food, grass, ground, horse, keyboard, light, motorbike, mountain, mouse, person, plate, platform, "
    "pottedplant, road, rock, sheep, shelves, sidewalk, sign, sky, snow, sofa, table, track, train, tree, truck, "
    "tvmonitor, wall, water, window, wood"
)


def open_voc(path: str | os.PathLike[str], split: str = "train") -> PixelFiles:
    """Opens a `VOC2012` folder: JPEGImages, SegmentationClass, ImageSets/Segmentation/SPLIT.txt.

    The border between objects (255) is void.  Raises ValueError for what is missing.
    """
    pairs = _listed(Path(path).expanduser(), "Segmentation", "SegmentationClass", split)
    return PixelFiles(pairs, CLASSES, bit_palette(len(CLASSES)))


def open_context(path: str | os.PathLike[str], split: str = "train") -> PixelFiles:
    """Opens a `VOC2010` folder with Pascal Context: SegmentationClassContext, ImageSets/SegmentationContext.

    The label pictures are those that mmsegmentation's converter makes: 0 is background, 1 to 59 the classes.  Raises
    ValueError for what is missing.
    """
    pairs = _listed(Path(path).expanduser(), "SegmentationContext", "SegmentationClassContext", split)
    return PixelFiles(pairs, CONTEXT_CLASSES, bit_palette(len(CONTEXT_CLASSES)))


def _listed(root: Path, lists: str, labels: str, split: str) -> list[tuple[Path, Path]]:
    file = root / "ImageSets" / lists / f"{split}.txt"
    if not file.is_file():
        raise ValueError(f"{file}: no such list of pictures (is {root} the folder of one year, such as VOC2012?)")
    pairs = []
    for name in file.read_text(encoding="utf-8").split():
        pair = root / "JPEGImages" / f"{name}.jpg", root / labels / f"{name}.png"
        for part in pair:
            if not part.is_file():
                raise ValueError(f"{part}: missing, though {file.name} of {lists} lists {name}")
        pairs.append(pair)
    return pairs
