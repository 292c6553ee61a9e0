"""What recipes read of pictures with a class for each pixel: batches, and how much each class should count."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sightline.data.pixel_labels import PixelLabels
from sightline.systems.segmenter import VOID


def read_batch(data: PixelLabels, indices: np.ndarray, recipe: Any) -> dict[str, Tensor]:
    """Reads {"images": bytes (batch, 3, H, W), "labels": (batch, H, W), "sizes": (batch, 2)}.

    Pictures whose short side is longer than `settings.short` (unless that is 0) are brought to it; all are filled up,
    with grey and void, to the largest of the batch.
    """
    images, labels = [], []
    for index in indices:
        image, truth = data.image(int(index)), data.labels(int(index))
        ratio = recipe.settings.short / min(truth.shape)
        if 0 < ratio < 1:
            size = (round(truth.shape[1] * ratio), round(truth.shape[0] * ratio))
            image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
            truth = np.asarray(Image.fromarray(truth).resize(size, Image.Resampling.NEAREST))
        images.append(image)
        labels.append(truth)
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    batch = np.full((len(images), height, width, 3), 127, dtype=np.uint8)
    known = np.full((len(images), height, width), VOID, dtype=np.uint8)
    for number, (image, truth) in enumerate(zip(images, labels, strict=True)):
        batch[number, : image.shape[0], : image.shape[1]] = image
        known[number, : image.shape[0], : image.shape[1]] = truth
    pixels = torch.from_numpy(batch).permute(0, 3, 1, 2)
    sizes = torch.tensor([truth.shape for truth in labels])
    return {"images": pixels, "labels": torch.from_numpy(known), "sizes": sizes}


def class_weights(data: PixelLabels, balance: float, most: int = 500) -> Tensor:
    """Weighs classes by (1 / share of pixels)^balance, so that the mean pixel weighs 1; 0 weighs all the same.

    1 is Eigen and Fergus's median frequency balancing (2015), as in SegNet, up to a factor.  Shares are counted on at
    most so many pictures, evenly spread; a class that none of them shows weighs as the rarest.
    """
    counts = np.zeros(256)
    if balance:
        for index in np.linspace(0, len(data) - 1, min(most, len(data))).round().astype(int):
            counts += np.bincount(data.labels(int(index)).ravel(), minlength=256)
    counts = counts[: len(data.classes)]
    if not counts.any():
        return torch.ones(len(data.classes))
    shares = counts / counts.sum()
    weights = np.maximum(shares, shares[shares > 0].min()) ** -balance
    return torch.tensor(weights / (shares * weights).sum(), dtype=torch.float32)
