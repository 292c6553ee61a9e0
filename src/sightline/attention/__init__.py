"""The mechanisms of attention, one per file, and their masks."""

from sightline.attention import masks, observe
from sightline.attention.dot_product import MultiHeadAttention

__all__ = ["MultiHeadAttention", "masks", "observe"]
