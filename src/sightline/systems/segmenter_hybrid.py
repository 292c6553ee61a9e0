"""Hybrid Segmenter: the patches are cells of a convolutional network's features, so little data is enough.

paper     Segmenter, Strudel et al., ICCV 2021 (arXiv 2105.05633), with the hybrid input of
          An Image is Worth 16x16 Words, Dosovitskiy et al., ICLR 2021, section 3.1
idea      A ViT from scratch needs millions of photographs to learn what an edge is; pretrained convolutions know.
          So the Transformer's words are the cells of a feature map instead of raw patches.
flow      images (B, 3, H, W), padded by zeros to multiples of 32
          -> EfficientNet-Lite0 features at strides 8, 16 and 32 (40, 112 and 320 channels)
          -> each mapped to D by a 1x1 convolution, brought to stride 8, added = patches (B, N, D), N = H/8 W/8
          -> + positions -> `depth` pre-norm layers -> norm
          -> linear decoder or mask transformer of systems/segmenter.py -> masks (B, classes, H/8, W/8)
          -> bilinear to the image's size (B, classes, H, W)
differs   The ViT paper's hybrid reads one stage of a ResNet; here three stages of EfficientNet-Lite0 are added, because
          street scenes at 360 x 270 pixels have objects two cells wide.  No class token: nothing reads it.
          No dropout: with it a step takes twice as long on a CPU, whose fused attention knows none.
          The convolutions' batch norms keep ImageNet's running statistics in training, too.
recipe    recipes/segmenter_hybrid.py
"""

from collections.abc import Sequence

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from sightline.attention import MultiHeadAttention
from sightline.blocks.positions import GridPositions
from sightline.blocks.transformer import FeedForward, PreNormLayer
from sightline.systems.efficientnet_lite import efficientnet_lite0
from sightline.systems.segmenter import decoder_of, enlarged, padded, pixel_loss

CELL = 8
# blocks of Lite0 after which the features of a stride are complete, and their channels
STAGES = {8: (5, 40), 16: (11, 112), 32: (16, 320)}


class FeaturePatches(nn.Module):
    """Computes patches of 8 x 8 pixels, (B, 3, H, W) -> (B, D, H/8, W/8), from three stages of EfficientNet-Lite0.

    Raises ValueError for sides that are no multiple of 32.
    """

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        network = efficientnet_lite0(classes=0)
        self.stem, self.blocks = network.stem, network.blocks  # its top and classifier are not needed
        self.to_patches = nn.ModuleList(nn.Conv2d(channels, dim, 1) for _, channels in STAGES.values())

    def train(self, mode: bool = True) -> "FeaturePatches":
        """Keeps the batch norms at ImageNet's statistics: a few crops of one town's streets have poorer ones."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim rows columns"]:
        if images.shape[-1] % 32 or images.shape[-2] % 32:
            raise ValueError(f"sides must be multiples of 32, given {tuple(images.shape[-2:])}: pad the images")
        features, start = self.stem(images), 0
        parts: list[Tensor] = []
        for (end, _), to_patches in zip(STAGES.values(), self.to_patches, strict=True):
            for block in self.blocks[start:end]:
                features = block(features)
            start = end
            mapped = to_patches(features)
            parts.append(mapped if not parts else F.interpolate(mapped, size=parts[0].shape[-2:], mode="bilinear"))
        return torch.stack(parts).sum(dim=0)


class SegmenterHybrid(nn.Module, PyTorchModelHubMixin):
    """Computes class logits of every pixel, with a Transformer over the cells of EfficientNet-Lite0's features.

    `image_size` (side or (height, width)) is the size the positions are learned at, any other runs.  Images are scaled
    as `(bytes - 127) / 128`.  `decoder_depth=0` is the linear decoder.  Raises ValueError for sizes that do not fit.
    """

    def __init__(
        self,
        *,
        image_size: int | Sequence[int] = (256, 320),
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
        self.features = FeaturePatches(dim=dim)
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
            classes=classes,
            memory_dim=dim,
            depth=decoder_depth,
            heads=decoder_heads or heads,
            dropout=0.0,
        )

    def masks(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch {self.classes} rows columns"]:
        """Gives the class scores of each cell of 8 x 8 pixels; the last ones of a side may be padding."""
        cells = self.features(padded(images, 32))
        rows, columns = cells.shape[-2:]
        tokens = cells.flatten(2).transpose(1, 2) + self.positions(rows * CELL, columns * CELL)
        for layer in self.layers:
            tokens = layer(tokens)
        return self.decoder(self.norm(tokens)).transpose(1, 2).unflatten(2, (rows, columns))

    def forward(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch {self.classes} height width"]:
        """Gives the class logits of each pixel."""
        height, width = images.shape[-2:]
        return enlarged(self.masks(images), (height, width), CELL)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Computes the cross-entropy of `batch["images"]` against `batch["labels"]` (B, H, W); 255 is void."""
        return pixel_loss(self(batch["images"]), batch["labels"])
