"""Which views the published recipes make of a picture."""

from types import SimpleNamespace
from typing import Any

from sightline.recipes.views import multi_crop
from sightline.systems.vit import VisionTransformer


def test_swavs_views_are_two_large_ones_and_some_small_ones() -> None:
    system = VisionTransformer(image_size=64, patch=16, dim=8, depth=1, heads=1, classes=0)
    settings: dict[str, Any] = {"side": 0, "small": 0, "crops": 6, "least": 0.05, "smallest": 0.14, "blur": 0.5}
    large, few = multi_crop(SimpleNamespace(**settings), system)
    assert (large.side, large.scale, large.count) == (64, (0.14, 1.0), 2)
    assert (few.side, few.scale, few.count) == (32, (0.05, 0.14), 6)
    assert large.jitter == few.jitter == (0.8, 0.8, 0.8, 0.2)
    assert large.blur == few.blur == 0.25
    large, few = multi_crop(SimpleNamespace(**settings | {"side": 48, "small": 20}), system)
    assert (large.side, few.side) == (48, 20)
    (large,) = multi_crop(SimpleNamespace(**settings | {"crops": 0}), system)
    assert large.count == 2
