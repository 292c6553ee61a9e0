"""Random crops of pictures with labels for each pixel, on whole batches, drawn from torch's global generator."""

import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor
from torch.nn import functional as F

from sightline.systems.segmenter import VOID


def cut_some(
    images: Float[Tensor, "batch 3 height width"],
    labels: Integer[Tensor, "batch height width"],
    sizes: Int[Tensor, "batch 2"],
    *,
    crop: tuple[int, int],
    scales: tuple[float, float] = (0.5, 2.0),
    short: int = 0,
) -> tuple[Float[Tensor, "batch 3 rows columns"], Int[Tensor, "batch rows columns"]]:
    """Scales each picture evenly between `scales`, cuts a crop (height, width) at random and mirrors half of them.

    `sizes` are the pictures' own (height, width), beyond which a batch is filled up, best on the CPU, for which no GPU
    must be waited for; scale 1 is a short side of `short`
    pixels, or for 0 the picture's own.  A crop larger than the picture
    ends in zeros and void at the right and at the bottom, as in Segmenter's training (mmsegmentation's pipeline).
    """
    count, device, sizes = len(images), images.device, sizes.cpu()  # where all is drawn
    scale = torch.empty(count, 1).uniform_(*scales)
    if short:
        scale = scale * short / sizes.amin(dim=1, keepdim=True)
    window = torch.tensor(crop, dtype=torch.float32) / scale  # (height, width) in the picture's own pixels
    corner = torch.rand(count, 2) * (sizes - window).clamp_min(0)
    steps = [(torch.arange(side) + 0.5) / side for side in crop]
    rows = corner[:, :1] + steps[0] * window[:, :1]  # (batch, rows), where each row of the crop is read
    across = torch.where(torch.rand(count, 1) < 0.5, 1 - steps[1], steps[1])
    columns = corner[:, 1:] + across * window[:, 1:]
    inside_rows, inside_columns = (rows < sizes[:, :1]).to(device), (columns < sizes[:, 1:]).to(device)
    rows, columns = rows.to(device), columns.to(device)  # whole grids are made there
    down = (2 * rows / images.shape[-2] - 1)[:, :, None].expand(count, *crop)
    right = (2 * columns / images.shape[-1] - 1)[:, None, :].expand(count, *crop)
    grid = torch.stack([right, down], dim=3)
    pictures = F.grid_sample(images, grid, mode="bilinear", align_corners=False)
    # from 1 on, as what lies outside reads as 0
    numbers = F.grid_sample((labels + 1.0)[:, None], grid, mode="nearest", align_corners=False)[:, 0].round().long() - 1
    inside = inside_rows[:, :, None] & inside_columns[:, None, :]
    return pictures * inside[:, None], numbers.masked_fill(~inside | (numbers < 0), VOID)
