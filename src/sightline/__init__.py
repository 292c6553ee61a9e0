"""Sightline: attention in vision and language.

Nothing heavy is imported until it is used, so that `import sightline` and `sightline --help` stay quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# public name -> the module that defines it; the one place where the public surface is listed
_HOME = {
    "record": "sightline.lens",
    "survey": "sightline.lens",
    "CLS": "sightline.lens",
    "LAST": "sightline.lens",
    "Layout": "sightline.lens",
    "words_to_regions": "sightline.lens.words",
    "load_checkpoint": "sightline.checkpoints",
    "bundled": "sightline.checkpoints",
    "open_photograph": "sightline.data.photographs",
    "look": "sightline.tasks.look",
    "look_at_frames": "sightline.tasks.frames",
    "ask": "sightline.tasks.ask",
    "caption": "sightline.tasks.caption",
    "classify": "sightline.tasks.classify",
    "glimpse": "sightline.tasks.glimpse",
    "point": "sightline.tasks.point",
    "segment": "sightline.tasks.segment",
    "translate": "sightline.tasks.translate",
}

if TYPE_CHECKING:
    from sightline.checkpoints import bundled, load_checkpoint
    from sightline.data.photographs import open_photograph
    from sightline.lens import CLS, LAST, Layout, record, survey
    from sightline.lens.words import words_to_regions
    from sightline.tasks.ask import ask
    from sightline.tasks.caption import caption
    from sightline.tasks.classify import classify
    from sightline.tasks.frames import look_at_frames
    from sightline.tasks.glimpse import glimpse
    from sightline.tasks.look import look
    from sightline.tasks.point import point
    from sightline.tasks.segment import segment
    from sightline.tasks.translate import translate

__all__ = [
    "CLS",
    "LAST",
    "Layout",
    "__version__",
    "ask",
    "bundled",
    "caption",
    "classify",
    "glimpse",
    "load_checkpoint",
    "look",
    "look_at_frames",
    "open_photograph",
    "point",
    "record",
    "segment",
    "survey",
    "translate",
    "words_to_regions",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'sightline' has no attribute {name!r}; it offers {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
