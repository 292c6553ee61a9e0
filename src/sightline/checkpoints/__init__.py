"""Weights from elsewhere and from the package: one converter a source, strict, and nothing is unpickled."""

from typing import TYPE_CHECKING, Any

from sightline.checkpoints.bundled import bundled, bundled_card, bundled_names

if TYPE_CHECKING:
    from sightline.checkpoints.load import load_checkpoint

__all__ = ["bundled", "bundled_card", "bundled_names", "load_checkpoint"]


def __getattr__(name: str) -> Any:
    """Imports the converters, and torch with them, only for who loads weights: the cards are read without."""
    if name == "load_checkpoint":
        from sightline.checkpoints.load import load_checkpoint

        return load_checkpoint
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
