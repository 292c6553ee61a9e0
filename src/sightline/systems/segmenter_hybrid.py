"""Hybrid Segmenter: the patches are cells of a convolutional network's features, so little data is enough.

paper     Segmenter, Strudel et al., ICCV 2021 (arXiv 2105.05633), with the hybrid input of An Image is Worth 16x16
          Words, Dosovitskiy et al., ICLR 2021, section 3.1, and the top-down path of Feature Pyramid Networks,
          Lin et al., CVPR 2017
idea      A ViT from scratch needs millions of photographs to learn what an edge is; pretrained convolutions know.
          So the Transformer's words are the cells of a feature map instead of raw patches.  Before they are compared
          with the class tokens, the finer maps below give the cells back their edges.
flow      images (B, 3, H, W), padded by zeros to multiples of 32
          -> EfficientNet-Lite0 features at strides 4, 8, 16 and 32 (24, 40, 112 and 192 channels)
          -> the last two, each mapped to D, added at stride 16 = patches (B, N, D), N = H/16 W/16
          -> + positions -> `depth` pre-norm layers -> norm
          -> mask transformer of systems/segmenter.py: patches and class tokens read each other
          -> patches brought to stride 8, then 4, each time the features of that stride are added and mixed
          -> products with the class tokens, norm over the classes (or one linear map) = masks (B, classes, H/4, W/4)
          -> bilinear to the image's size (B, classes, H, W)
differs   The ViT paper's hybrid reads one stage of a ResNet; Segmenter compares class tokens with the very patches they
          read.  Here the compared cells are four times as fine, for a lamp post in CamVid is three pixels wide.
          No class token: nothing reads it.  No dropout: with it a step takes twice as long on a CPU, whose fused
          attention knows none.  The convolutions' batch norms keep ImageNet's running statistics in training, too.
          Lite0's last block is left out: with its 0.6 million parameters three Transformer layers can be had.
recipe    recipes/segmenter_hybrid.py
mIoU      see the table of docs/segmentation.md: CamVid
"""

from collections.abc import Sequence
from typing import cast

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from sightline.attention import MultiHeadAttention
from sightline.blocks.positions import GridPositions
from sightline.blocks.transformer import FeedForward, PreNormLayer
from sightline.systems.efficientnet_lite import efficientnet_lite0
from sightline.systems.segmenter import MaskTransformer, decoder_of, enlarged, padded, pixel_loss

CELL, FINE = 16, 4  # pixels a side of the Transformer's patches, and of the cells that class tokens are compared with
# blocks of Lite0 after which the features of a stride are complete, and their channels
STAGES = {4: (3, 24), 8: (5, 40), 16: (11, 112), 32: (15, 192)}


class Convolutions(nn.Module):
    """Computes the features of EfficientNet-Lite0 at strides 4, 8, 16 and 32, images (B, 3, H, W).

    Raises ValueError for sides that are no multiple of 32.
    """

    def __init__(self) -> None:
        super().__init__()
        network = efficientnet_lite0(classes=0)
        self.stem = network.stem
        self.blocks = network.blocks[: STAGES[32][0]]  # the last block, the top and the classifier are not needed

    def train(self, mode: bool = True) -> "Convolutions":
        """Keeps the batch norms at ImageNet's statistics: a few crops of one town's streets have poorer ones."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> dict[int, Tensor]:
        """Gives {stride: (B, channels, H / stride, W / stride)}."""
        if images.shape[-1] % 32 or images.shape[-2] % 32:
            raise ValueError(f"sides must be multiples of 32, given {tuple(images.shape[-2:])}: pad the images")
        features, start = self.stem(images.contiguous(memory_format=torch.channels_last)), 0
        stages: dict[int, Tensor] = {}
        for stride, (end, _) in STAGES.items():
            for block in self.blocks[start:end]:
                features = block(features)
            stages[stride], start = features, end
        return stages


class Mix(nn.Module):
    """Mixes neighbouring cells, x + W2 gelu(W1 norm(filter(x))), with a 5 x 5 filter for each channel.

    The block of ConvNeXt (Liu et al. 2022), twice as wide inside.
    """

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.filter = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.feedforward = FeedForward(dim=dim, hidden=2 * dim)

    def forward(self, cells: Float[Tensor, "batch dim rows columns"]) -> Float[Tensor, "batch dim rows columns"]:
        branch = self.filter(cells).permute(0, 2, 3, 1)
        return cells + self.feedforward(self.norm(branch)).permute(0, 3, 1, 2)


class Refine(nn.Module):
    """Brings patches of stride 16 to stride 4, adding on the way the features of strides 8 and 4.

    patches (B, D, H/16, W/16) -> (B, D, H/4, W/4).
    """

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.sides = nn.ModuleList(nn.Conv2d(STAGES[stride][1], dim, 1) for stride in (8, 4))
        self.mixes = nn.ModuleList(Mix(dim=dim) for _ in (8, 4))

    def forward(
        self, patches: Float[Tensor, "batch dim rows columns"], stages: dict[int, Tensor]
    ) -> Float[Tensor, "batch dim finer_rows finer_columns"]:
        for stride, side, mix in zip((8, 4), self.sides, self.mixes, strict=True):
            added = side(stages[stride])
            patches = mix(F.interpolate(patches, size=added.shape[-2:], mode="bilinear") + added)
        return patches


class SegmenterHybrid(nn.Module, PyTorchModelHubMixin):
    """Computes class logits of every pixel, with a Transformer over the cells of EfficientNet-Lite0's features.

    `image_size` (side or (height, width)) is the size the positions are learned at, any other runs.  Images are scaled
    as `(bytes - 127) / 128`.  `decoder_depth=0` is the linear decoder.  Raises ValueError for sizes that do not fit.
    """

    def __init__(
        self,
        *,
        image_size: int | Sequence[int] = (384, 512),
        dim: int = 128,
        depth: int = 2,
        heads: int = 4,
        classes: int = 11,
        decoder_depth: int = 2,
        decoder_heads: int | None = None,
    ) -> None:
        super().__init__()
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        self.image_size, self.patch, self.classes = (height, width), CELL, classes
        self.features = Convolutions()
        self.to_patches = nn.ModuleList(nn.Conv2d(STAGES[stride][1], dim, 1) for stride in (16, 32))
        self.positions = GridPositions(image_size=(height, width), patch=CELL, dim=dim, prefix=0, rule="segmenter")
        self.layers = nn.ModuleList(
            PreNormLayer(
                dim=dim,
                attention=MultiHeadAttention(dim=dim, heads=heads),
                feedforward=FeedForward(dim=dim, hidden=4 * dim),
                eps=1e-5,
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)
        self.decoder = decoder_of(
            classes=classes, memory_dim=dim, depth=decoder_depth, heads=decoder_heads or heads, dropout=0.0
        )
        self.refine = Refine(dim=dim)

    def patches(self, stages: dict[int, Tensor]) -> Float[Tensor, "batch dim rows columns"]:
        """Gives what the Transformer makes of the features of strides 16 and 32, as a grid."""
        size = stages[16].shape[-2:]
        near, far = (to_patches(stages[stride]) for stride, to_patches in zip((16, 32), self.to_patches, strict=True))
        cells = near + F.interpolate(far, size=size, mode="bilinear")
        tokens = cells.flatten(2).transpose(1, 2) + self.positions(size[0] * CELL, size[1] * CELL)
        for layer in self.layers:
            tokens = layer(tokens)
        return self.norm(tokens).transpose(1, 2).unflatten(2, size)

    def masks(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch {self.classes} rows columns"]:
        """Gives the class scores of each cell of 4 x 4 pixels; the last ones of a side may be padding."""
        stages, decoder = self.features(padded(images, 32)), cast(MaskTransformer, self.decoder)  # or linear, alike
        patches = self.patches(stages)
        read, named = decoder.read(patches.flatten(2).transpose(1, 2))
        cells = self.refine(read.transpose(1, 2).unflatten(2, patches.shape[-2:]), stages)
        scores = decoder.compare(cells.flatten(2).transpose(1, 2), named)
        return scores.transpose(1, 2).unflatten(2, cells.shape[-2:])

    def forward(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch {self.classes} height width"]:
        """Gives the class logits of each pixel."""
        height, width = images.shape[-2:]
        return enlarged(self.masks(images), (height, width), FINE)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Computes the cross-entropy of `batch["images"]` against `batch["labels"]` (B, H, W); 255 is void.

        `batch["weights"]`, one for each class, may say how much its pixels count.
        """
        return pixel_loss(self(batch["images"]), batch["labels"], batch.get("weights"))
