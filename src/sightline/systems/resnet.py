"""Residual network: the convolutional backbone that self-supervised methods are compared on.

paper     Deep Residual Learning for Image Recognition, He et al., CVPR 2016 (arXiv 1512.03385)
idea      Layers learn what to add to their input.  Four stages halve the picture and double the channels.
          The mean over all places of the last stage describes the picture.
flow      images (B, 3, H, W) -> stem -> four stages of residual blocks = `grid(images)` (B, D, H / r, W / r)
          -> mean = features (B, D) -> head -> logits (B, classes); without classes: the features
differs   `stem`: "imagenet" (7 x 7, stride 2, then pooling: r = 32), or "small" (3 x 3, stride 1: r = 8) or "half"
          (3 x 3, stride 2: r = 16) for pictures of 32 and 64 pixels.  Bottlenecks have their stride in the 3 x 3
          convolution, as all recent implementations.
recipe    recipes/simclr.py and the other self-supervised recipes, with architecture=resnet
"""

from collections.abc import Sequence
from typing import Any

from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

STEMS = ("imagenet", "small", "half")


class BasicBlock(nn.Module):
    """Computes relu(shortcut(x) + two 3 x 3 convolutions), the first with a stride."""

    widening = 1

    def __init__(self, *, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(width)
        self.shortcut = _shortcut(channels, width, stride)

    def forward(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch out h2 w2"]:
        branch = self.second_norm(self.second(F.relu(self.first_norm(self.first(x)))))
        return F.relu(branch + self.shortcut(x))


class Bottleneck(nn.Module):
    """Computes relu(shortcut(x) + 1 x 1, 3 x 3 with a stride, and 1 x 1 convolution to four times the width)."""

    widening = 4

    def __init__(self, *, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(width)
        self.third = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.third_norm = nn.BatchNorm2d(4 * width)
        self.shortcut = _shortcut(channels, 4 * width, stride)

    def forward(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch out h2 w2"]:
        branch = F.relu(self.first_norm(self.first(x)))
        branch = F.relu(self.second_norm(self.second(branch)))
        return F.relu(self.third_norm(self.third(branch)) + self.shortcut(x))


def _shortcut(channels: int, out: int, stride: int) -> nn.Module:
    if channels == out and stride == 1:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))


class ResNet(nn.Module, PyTorchModelHubMixin):
    """Computes features of images (classes=0), or class logits.

    `blocks` says how many blocks each of the four stages has, `width` the channels of the first, doubled at each;
    `dim` is the width of the features.  Any image size runs; `image_size` is what weights were trained at.  Raises
    ValueError for an unknown stem or another number of stages.
    """

    def __init__(
        self,
        *,
        image_size: int = 224,
        blocks: Sequence[int] = (2, 2, 2, 2),
        width: int = 64,
        bottleneck: bool = False,
        stem: str = "imagenet",
        classes: int = 0,
    ) -> None:
        super().__init__()
        if stem not in STEMS or len(blocks) != 4:
            raise ValueError(f"stem is one of {', '.join(STEMS)} and blocks four numbers, given {stem!r}, {blocks}")
        self.image_size = (image_size, image_size)
        size, stride = (7, 2) if stem == "imagenet" else (3, 2 if stem == "half" else 1)
        self.stem = nn.Conv2d(3, width, size, stride, padding=size // 2, bias=False)
        self.stem_norm = nn.BatchNorm2d(width)
        self.pool = nn.MaxPool2d(3, 2, padding=1) if stem == "imagenet" else nn.Identity()
        kind, channels = (Bottleneck if bottleneck else BasicBlock), width
        layers: list[nn.Module] = []
        for stage, count in enumerate(blocks):
            for number in range(count):
                stride = 2 if stage and not number else 1
                layers.append(kind(channels=channels, width=width * 2**stage, stride=stride))
                channels = width * 2**stage * kind.widening
        self.stages = nn.Sequential(*layers)
        self.dim = channels
        self.head = nn.Linear(channels, classes) if classes else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def grid(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim rows columns"]:
        """Gives the last stage's feature map."""
        return self.stages(self.pool(F.relu(self.stem_norm(self.stem(images)))))

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch classes"]:
        """Gives the logits; without classes the features."""
        return self.head(self.grid(images).mean(dim=(2, 3)))

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Computes the cross-entropy of `batch["images"]` against `batch["labels"]`, and the accuracy.

        Raises ValueError for a network without classes.
        """
        if not isinstance(self.head, nn.Linear):
            raise ValueError("a network with classes=0 has no logits and no loss: build it with classes=...")
        logits, labels = self(batch["images"]), batch["labels"]
        return {"loss": F.cross_entropy(logits, labels), "accuracy": (logits.argmax(dim=1) == labels).float().mean()}


def resnet_18(**more: Any) -> ResNet:
    """ResNet-18: 11 million parameters."""
    return ResNet(**{"blocks": (2, 2, 2, 2), **more})


def resnet_50(**more: Any) -> ResNet:
    """ResNet-50, the network of the DINO paper's table 2: 23 million parameters without classes."""
    return ResNet(**{"blocks": (3, 4, 6, 3), "bottleneck": True, **more})
