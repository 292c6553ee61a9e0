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
    "load_checkpoint": "sightline.checkpoints",
}

if TYPE_CHECKING:
    from sightline.checkpoints import load_checkpoint
    from sightline.lens import CLS, LAST, record, survey

__all__ = ["CLS", "LAST", "__version__", "load_checkpoint", "record", "survey"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'sightline' has no attribute {name!r}; it offers {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
