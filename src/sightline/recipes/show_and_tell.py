"""Trains Show and Tell, the control without attention: data, schedule and measure of recipes/show_attend_tell.py."""

from typing import Any

from sightline.data.captioned_features import CaptionedFeatures
from sightline.recipes import show_attend_tell
from sightline.systems.show_and_tell import ShowAndTell

FRAME = show_attend_tell
TINY_SYSTEM = {"embedding": 32, "hidden": 48, "dropout": 0.0}


def build(data: CaptionedFeatures | None, **sizes: Any) -> ShowAndTell:
    """Builds the system for the words and features of the data, of about as many parameters as its counterpart."""
    if data is None:
        return ShowAndTell(**sizes)
    usual: dict[str, Any] = {"embedding": 320, "hidden": 448, "dropout": 0.3}
    return ShowAndTell(**usual | {"vocab": len(data.vocabulary), "width": data.width} | sizes)
