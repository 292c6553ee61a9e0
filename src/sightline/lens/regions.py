"""Regions of a picture that a heat map marks, and the control regions that they are compared with."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Real
from torch import Tensor


def centre_map(height: int, width: int) -> Float[Tensor, "height width"]:
    """A Gaussian at the centre with a quarter of each side as standard deviation: the map that knows no picture."""
    y, x = ((torch.arange(size) + 0.5) / size - 0.5 for size in (height, width))
    return torch.exp(-8 * (y[:, None] ** 2 + x[None, :] ** 2))


def highest(heat: Tensor, *, mass: float | None = None, area: float | None = None) -> Bool[Tensor, "images h w"]:
    """The smallest region with `mass` of the heat, or the highest `area` share of the picture."""
    share = mass if area is None else area
    if share is None or not 0 < share < 1:
        raise ValueError(f"{'mass' if area is None else 'area'}={share} must lie between 0 and 1.")
    if area is not None:
        return torch.stack([first(one, max(1, round(share * one.numel()))) for one in heat])
    if bool((heat < 0).any()):
        raise ValueError("mass= needs heat >= 0 (clamp signed maps, or give area= instead).")
    masks = []
    for one in heat:
        sums = one.flatten().double().sort(descending=True).values.cumsum(0)
        masks.append(first(one, int((sums < share * sums[-1]).sum()) + 1))
    return torch.stack(masks)


def first(heat: Float[Tensor, "h w"], count: int) -> Bool[Tensor, "h w"]:
    """The `count` highest pixels; equal ones in reading order."""
    mask = torch.zeros(heat.numel(), dtype=torch.bool, device=heat.device)
    mask[ordered(heat.flatten())[:count]] = True
    return mask.view_as(heat)


def ordered(heat: Real[Tensor, "*maps pixels"]) -> Int[Tensor, "*maps pixels"]:
    """Pixels of each map from the highest to the lowest; those that agree in 14 binary digits in reading order.

    Enlarging a map repeats its border, and each processor rounds those equal pixels in its own way: without this the
    same map would be cut at other pixels on a GPU than on a CPU.
    """
    digits, exponent = heat.float().frexp()
    return (digits * 2**14).round().ldexp(exponent).argsort(dim=-1, descending=True, stable=True)


def moved(maps: Tensor, count: int, seed: int) -> list[Tensor]:
    """`count` copies of each map, flipped by chance and shifted around the edges by a random vector."""
    draw = torch.Generator().manual_seed(seed)
    copies = []
    for _ in range(count):
        placed = []
        for one in maps:
            flips = [axis for axis in (0, 1) if torch.rand((), generator=draw) < 0.5]
            shift = [int(torch.randint(size, (), generator=draw)) for size in one.shape]
            placed.append(one.flip(flips).roll(shift, (0, 1)))
        copies.append(torch.stack(placed))
    return copies


def centre_like(heat: Float[Tensor, "images h w"]) -> Float[Tensor, "images h w"]:
    """`centre_map` once for each heat map."""
    return centre_map(*heat.shape[1:]).to(heat).expand_as(heat)


def heat_on(heat: Tensor, pixels: Tensor) -> Float[Tensor, "images height width"]:
    """The heat map at the size of the picture."""
    maps = heat.detach().to(pixels.device, torch.float32)
    maps = maps[None] if maps.ndim == 2 else maps[:, 0] if maps.ndim == 4 and maps.shape[1] == 1 else maps
    if maps.ndim != 3 or len(maps) != len(pixels):
        raise ValueError(
            f"heat has shape {tuple(heat.shape)}; for pixels {tuple(pixels.shape)} it must be ({len(pixels)}, h, w). "
            f"Average heads and choose a row first."
        )
    if not bool(maps.isfinite().all()):
        raise ValueError("heat holds NaN or infinity.")
    flat = maps.flatten(1)
    if bool((flat.amax(1) == flat.amin(1)).any()):
        raise ValueError("heat is the same everywhere, so it points at nothing that could be checked.")
    return F.interpolate(maps[:, None], pixels.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
