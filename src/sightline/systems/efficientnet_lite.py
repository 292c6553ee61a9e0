"""EfficientNet-Lite: a small convolutional network, here the frozen encoder of systems that look at photographs.

paper     EfficientNet, Tan and Le, ICML 2019 (arXiv 1905.11946); the Lite variants are Google's, 2020 (tensorflow/tpu)
idea      Inverted residual blocks (widen by a 1x1 convolution, filter each channel, narrow again), and one rule
          that scales depth, width and picture size together.  Lite leaves out squeeze-and-excitation and takes
          ReLU6 for swish, which quantise well.
flow      images (B, 3, H, W) in -1..1
          -> stem, stride 2 (B, 32, H/2, W/2) -> 7 stages of blocks, strides 1 2 2 2 1 2 1 (B, 320, H/32, W/32)
          -> 1x1 convolution (B, 1280, H/32, W/32) = `grid(images)` -> mean -> linear -> logits (B, classes)
differs   `classes=0` leaves the classifier out and `forward` gives the mean feature.
          Padding is TensorFlow's "same" (more at the right and bottom), computed for each size: any size runs.
          No stochastic depth: nothing here trains it.
recipe    none; the weights are Google's, read by checkpoints/efficientnet_lite.py
"""

from typing import Any

from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

# (blocks, kernel, stride, expansion, width) of the seven stages of Lite0
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class SameConvolution(nn.Conv2d):
    """Convolves with TensorFlow's "same" padding: the output has ceil(side / stride) cells a side."""

    def forward(self, input: Tensor) -> Tensor:
        pads: list[int] = []
        for side, kernel, stride in zip(
            reversed(input.shape[-2:]), reversed(self.kernel_size), reversed(self.stride), strict=True
        ):
            lacking = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            pads += [lacking // 2, lacking - lacking // 2]
        return super().forward(F.pad(input, pads) if any(pads) else input)


class Convolution(nn.Sequential):
    """Convolves without bias, normalises by running statistics, and cuts to 0..6 where `active`."""

    def __init__(
        self, *, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, active: bool = True
    ) -> None:
        filters = SameConvolution(inputs, outputs, kernel, stride, groups=groups, bias=False)
        super().__init__(
            filters, nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01), nn.ReLU6() if active else nn.Identity()
        )


class InvertedResidual(nn.Module):
    """Widens, filters each channel and narrows; adds its input where shapes agree."""

    def __init__(self, *, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.widen = Convolution(inputs=inputs, outputs=hidden) if expansion > 1 else nn.Identity()
        self.filter = Convolution(inputs=hidden, outputs=hidden, kernel=kernel, stride=stride, groups=hidden)
        self.narrow = Convolution(inputs=hidden, outputs=outputs, active=False)
        self.residual = stride == 1 and inputs == outputs

    def forward(
        self, images: Float[Tensor, "batch inputs height width"]
    ) -> Float[Tensor, "batch outputs lower narrower"]:
        """Gives the block's output."""
        narrowed = self.narrow(self.filter(self.widen(images)))
        return images + narrowed if self.residual else narrowed


class EfficientNetLite(nn.Module, PyTorchModelHubMixin):
    """Computes class logits of images, or the grid of features before them.

    `width` and `depth` are the paper's multipliers (stem and top keep theirs in Lite); `image_size` is the side
    the weights were trained at, and any other runs; `classes=0` leaves the classifier out. Images are scaled as
    `(bytes - 127) / 128`.
    """

    def __init__(
        self,
        *,
        width: float = 1.0,
        depth: float = 1.0,
        image_size: int = 224,
        classes: int = 1000,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.stem = Convolution(inputs=3, outputs=32, kernel=3, stride=2)
        blocks: list[nn.Module] = []
        now = 32
        for number, (count, kernel, stride, expansion, channels) in enumerate(STAGES):
            ends = number in (0, len(STAGES) - 1)
            channels = _to_eights(channels * width)
            for place in range(count if ends else -int(-count * depth // 1)):
                blocks.append(
                    InvertedResidual(
                        inputs=now,
                        outputs=channels,
                        kernel=kernel,
                        stride=1 if place else stride,
                        expansion=expansion,
                    )
                )
                now = channels
        self.blocks = nn.ModuleList(blocks)
        self.top = Convolution(inputs=now, outputs=1280)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(1280, classes) if classes else nn.Identity()

    def grid(
        self, images: Float[Tensor, "batch 3 height width"], blocks: int | None = None
    ) -> Float[Tensor, "batch channels rows columns"]:
        """Gives the 1280 features of each cell of 32 x 32 pixels, or what comes out of the first `blocks` blocks."""
        images = self.stem(images)
        for block in self.blocks[:blocks]:
            images = block(images)
        return self.top(images) if blocks is None else images

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch classes"]:
        """Gives the logits; without classes the mean feature."""
        return self.head(self.dropout(self.grid(images).mean(dim=(2, 3))))


def _to_eights(channels: float) -> int:
    """Rounds to a multiple of 8, never down by more than a tenth, as the paper's code does."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def normalised(pixels: Tensor) -> Tensor:
    """Scales bytes (…, 3, H, W) as Google's Lite weights expect them."""
    return (pixels.float() - 127.0) / 128.0


def efficientnet_lite0(**more: Any) -> EfficientNetLite:
    """EfficientNet-Lite0: 4.7 million parameters (3.4 without the classifier), 224 px."""
    return EfficientNetLite(**{"width": 1.0, "depth": 1.0, "image_size": 224, **more})


def efficientnet_lite1(**more: Any) -> EfficientNetLite:
    """EfficientNet-Lite1: 5.4 million parameters, 240 px."""
    return EfficientNetLite(**{"width": 1.0, "depth": 1.1, "image_size": 240, **more})


def efficientnet_lite2(**more: Any) -> EfficientNetLite:
    """EfficientNet-Lite2: 6.1 million parameters, 260 px."""
    return EfficientNetLite(**{"width": 1.1, "depth": 1.2, "image_size": 260, **more})
