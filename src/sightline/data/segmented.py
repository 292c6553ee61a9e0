"""Collections of pictures with a class for each pixel, by name: `camvid:PATH`, `cityscapes:PATH`, `world:COUNT` …"""

from collections.abc import Callable

from sightline.data.ade20k import open_ade20k
from sightline.data.camvid import open_camvid
from sightline.data.cityscapes import open_cityscapes
from sightline.data.pascal import open_context, open_voc
from sightline.data.pixel_labels import PixelLabels
from sightline.data.world_pixels import WorldPixels

KINDS: dict[str, Callable[[str, str], PixelLabels]] = {
    "camvid": open_camvid,
    "cityscapes": open_cityscapes,
    "ade20k": open_ade20k,
    "voc": open_voc,
    "context": open_context,
    "world": WorldPixels,
}


def open_segmented(spec: str, split: str = "train") -> PixelLabels:
    """Opens `KIND:PATH` with KIND one of camvid, cityscapes, ade20k, voc, context, or `world:COUNT`.

    `camvid:` also reads pictures of one's own in the same plain layout (see `open_camvid`), `world:` draws so many
    scenes (`sightline.data.world_pixels`).  Raises ValueError for an unknown kind, and what the readers raise.
    """
    kind, colon, path = spec.partition(":")
    if not colon or kind not in KINDS or not path:
        raise ValueError(
            f"data {spec!r}: expected KIND:PATH with KIND one of {', '.join(KINDS)}, such as camvid:camvid"
        )
    return KINDS[kind](path, split)
