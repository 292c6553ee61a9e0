"""Progressive sampling: reads a feature map at points that move, instead of at a fixed grid of patches.

Vision Transformer with Progressive Sampling, Yue et al., ICCV 2021, section 3.2.  Points are (row, column) in cells of
the feature map, p_0 a regular grid; what was read at p_t says where to go next:

    p_{t+1} = p_t + o_t,    o_t = W T_t + b,    T_t = layer(F(p_t) + position(p_t) + T_{t-1})

F(p) is bilinear between the four cells around p, and zero outside the map, so offsets learn by gradient alone.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from sightline.attention import observe


def grid_points(
    points: tuple[int, int], size: tuple[int, int], device: torch.device | None = None
) -> Float[Tensor, "points 2"]:
    """Lays `points` (rows, columns) evenly on a map of `size` (height, width) cells: (row, column), column by column.

    The spacing is size / points, the first point half a spacing from the edge, as published.  Raises ValueError for
    fewer than one point a side.
    """
    if min(points) < 1:
        raise ValueError(f"a grid has at least one point a side, given {points[0]} x {points[1]}")
    rows, columns = (
        torch.arange(count, device=device) * (extent / count) + extent / count / 2
        for count, extent in zip(points, size, strict=True)
    )
    across, down = torch.meshgrid(columns, rows, indexing="ij")
    return torch.stack([down.flatten(), across.flatten()], dim=1)


def sample(
    features: Float[Tensor, "batch channels height width"], points: Float[Tensor, "batch points 2"]
) -> Float[Tensor, "batch points channels"]:
    """Reads the map between its cells: F(p) = sum over cells q of max(0, 1 - |p_y - q_y|) max(0, 1 - |p_x - q_x|) F(q).

    Cells outside the map count as zero.  Gradients reach the features and the points, in float32.  Whoever listens
    through `observe` is told the weights of every point over the cells.
    """
    height, width = features.shape[-2:]
    if observe.listening():
        observe.report(sampling_weights(points.detach(), (height, width))[:, None], kind="cross", name="points")
    row, column = points.float().unbind(dim=2)
    # (x, y), -1 and 1 at the outer edges of the outer cells; sizes as plain numbers, for which no device must wait
    places = torch.stack([(2 * column + 1) / width - 1, (2 * row + 1) / height - 1], dim=2)
    with torch.autocast(features.device.type, enabled=False):  # half a cell is all that bfloat16 keeps of a place
        read = F.grid_sample(
            features.float(), places[:, None], mode="bilinear", padding_mode="zeros", align_corners=False
        )
    return read[:, :, 0].transpose(1, 2)


def sampling_weights(
    points: Float[Tensor, "batch points 2"], size: tuple[int, int]
) -> Float[Tensor, "batch points cells"]:
    """Computes the bilinear weight of every cell for every point; the cells row by row, each row's sum 1.

    A point outside the map, which reads zeros, counts as even over all cells.
    """
    down, across = (
        (1 - (points[..., axis, None].float() - torch.arange(size[axis], device=points.device)).abs()).clamp_min(0)
        for axis in (0, 1)
    )
    weights = (down[..., :, None] * across[..., None, :]).flatten(2)
    mass = weights.sum(dim=2, keepdim=True)
    return torch.where(mass > 0, weights / mass.clamp_min(1e-12), 1 / weights.shape[2])
