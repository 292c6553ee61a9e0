"""Goes on from a trained Show and Tell as recipes/self_critical.py does from Show, Attend and Tell: its control."""

from sightline.recipes.captions import (
    agree,
    describe,
    draw_samples,
    load_beside,
    measure,
    open_data,
    read_batch,
    save_beside,
)
from sightline.recipes.self_critical import HELD, TINY, Recipe, Settings
from sightline.recipes.show_and_tell import TINY_SYSTEM, build

__all__ = [
    "HELD",
    "TINY",
    "TINY_SYSTEM",
    "Recipe",
    "Settings",
    "agree",
    "build",
    "describe",
    "draw_samples",
    "load_beside",
    "measure",
    "open_data",
    "read_batch",
    "save_beside",
]
