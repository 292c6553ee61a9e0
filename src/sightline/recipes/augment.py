"""Random changes of training pictures, on whole batches of floats in 0..1, drawn from torch's global generator."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

Images = Float[Tensor, "batch 3 height width"]


def crop_and_flip(images: Images, side: int, smallest: float = 0.4) -> Float[Tensor, "batch 3 {side} {side}"]:
    """Cuts a window of `smallest` to all of the area, aspect 3/4 to 4/3, scales it to `side`, mirrors half.

    One window a picture, drawn evenly in area, log aspect and place (Szegedy et al. 2015, section 6).
    """
    count = len(images)
    area = torch.empty(count).uniform_(smallest, 1.0)
    aspect = torch.empty(count).uniform_(-0.2877, 0.2877).exp().sqrt()  # log(4/3)
    width, height = (area.sqrt() * aspect).clamp(max=1.0), (area.sqrt() / aspect).clamp(max=1.0)
    flip = torch.where(torch.rand(count) < 0.5, -1.0, 1.0)
    zero = torch.zeros(count)
    across, down = (torch.empty(count).uniform_(-1, 1) * (1 - extent) for extent in (width, height))
    rows = [torch.stack([width * flip, zero, across], 1), torch.stack([zero, height, down], 1)]
    place = torch.stack(rows, 1).to(images.device)
    grid = F.affine_grid(place, [count, 3, side, side], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def jitter_colours(images: Images, strength: float = 0.3) -> Images:
    """Scales brightness, contrast and saturation of each picture by 1 - strength to 1 + strength."""
    bright, contrast, colour = (1 + strength * (2 * torch.rand(3, len(images), 1, 1, 1) - 1)).to(images.device)
    images = images * bright
    images = torch.lerp(images.mean(dim=(1, 2, 3), keepdim=True), images, contrast)
    grey = images.mean(dim=1, keepdim=True)
    return torch.lerp(grey, images, colour).clamp(0, 1)


def soften_some(images: Images, share: float = 0.3, noise: float = 0.04) -> Images:
    """Halves the resolution of a `share` of the pictures, and adds noise of up to `noise` to all.

    Collections differ in sharpness (CIFAR-10 is 32 pixels wide); without this a network tells the collection by it.
    """
    soft = F.interpolate(F.avg_pool2d(images, 2), size=images.shape[-2:], mode="bilinear")
    chosen = (torch.rand(len(images), 1, 1, 1) < share).to(images.device)
    images = torch.where(chosen, soft, images)
    level = noise * torch.rand(len(images), 1, 1, 1)
    return images + (level * torch.randn(images.shape)).to(images)


def mix_some(
    images: Images, labels: Float[Tensor, "batch classes"], share: float
) -> tuple[Images, Float[Tensor, "batch classes"]]:
    """Pastes a rectangle of another picture of the batch into a `share` of the pictures, labels by area.

    CutMix, Yun et al. 2019 (arXiv 1905.04899), equation 1.
    """
    count, _, height, width = images.shape
    area = torch.rand(count) * (torch.rand(count) < share)
    rows, columns = (area.sqrt() * height).round(), (area.sqrt() * width).round()
    top, left = (torch.rand(count) * (height - rows)).floor(), (torch.rand(count) * (width - columns)).floor()
    y, x = torch.arange(height)[None, :, None], torch.arange(width)[None, None, :]
    in_rows = (y >= top[:, None, None]) & (y < (top + rows)[:, None, None])
    inside = (in_rows & (x >= left[:, None, None]) & (x < (left + columns)[:, None, None])).to(images.device)
    other = torch.randperm(count)
    images = torch.where(inside[:, None], images[other], images)
    covered = inside.float().mean(dim=(1, 2))[:, None]
    return images, torch.lerp(labels, labels[other], covered)
