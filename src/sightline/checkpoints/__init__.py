"""Weights from elsewhere and from the package: one converter a source, strict, and nothing is unpickled."""

from sightline.checkpoints.bundled import bundled, bundled_card, bundled_names
from sightline.checkpoints.load import load_checkpoint

__all__ = ["bundled", "bundled_card", "bundled_names", "load_checkpoint"]
