"""Pictures to square arrays of one size, the same way in training and in use."""

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor


def to_square(picture: Image.Image | np.ndarray, side: int) -> UInt8[Tensor, "3 {side} {side}"]:
    """Cuts the middle square and resizes it (bicubic, antialiased): bytes (3, side, side)."""
    if isinstance(picture, np.ndarray) and picture.shape == (side, side, 3):
        return torch.from_numpy(np.array(picture.transpose(2, 0, 1), order="C"))
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    width, height = image.size
    short = min(width, height)
    left, top = (width - short) / 2, (height - short) / 2
    if image.size != (side, side):
        box = (left, top, left + short, top + short)
        image = image.resize((side, side), Image.Resampling.BICUBIC, box=box)
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()
