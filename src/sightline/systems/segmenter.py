"""Segmenter: names the class of every pixel, by comparing patches with learned class tokens.

paper     Segmenter: Transformer for Semantic Segmentation, Strudel et al., ICCV 2021 (arXiv 2105.05633)
idea      A ViT gives every patch the whole image as context, from the first layer on.
          The mask transformer reads the patches together with one learned token for each class;
          the mask of a class is the scalar product of its token with every patch.
flow      images (B, 3, H, W), padded by zeros to whole patches
          -> encoder: ViT tokens after the final norm, without class token and registers (B, N, D)
          -> linear decoder: one linear map (B, N, classes); or the mask transformer:
             [patches | class tokens] (B, N + classes, D') -> `decoder_depth` pre-norm layers -> norm
             -> both halves projected and scaled to length 1 -> products -> norm over the classes (B, N, classes)
          -> grid of masks (B, classes, H / patch, W / patch) = `masks(images)`
          -> bilinear to the image's size (B, classes, H, W)
differs   Query, key and value are three maps, as everywhere here (the numbers are the same).
          DeiT's distillation token is the ViT's first register.
          The loss is the mean over images of the mean over their labelled pixels, so processes may share a batch.
recipe    recipes/segmenter.py; with convolutions below: systems/segmenter_hybrid.py
mIoU      not measured yet from scratch; docs/segmentation.md has the commands, and what the hybrid reaches on CamVid
"""

from collections.abc import Sequence
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float, Integer
from torch import Tensor, nn
from torch.nn import functional as F

from sightline.attention import MultiHeadAttention
from sightline.blocks.transformer import FeedForward, PreNormLayer
from sightline.systems.vit import VisionTransformer

VOID = 255  # the label of pixels that nobody named


class LinearDecoder(nn.Module):
    """Computes the class scores of each patch by one linear map (section 3.2, the baseline)."""

    def __init__(self, *, dim: int, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(dim, classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def read(self, patches: Float[Tensor, "batch patches dim"]) -> tuple[Tensor, None]:
        """Gives the patches as they are: there are no class tokens."""
        return patches, None

    def compare(
        self, patches: Float[Tensor, "batch patches dim"], named: None = None
    ) -> Float[Tensor, "batch patches classes"]:
        """Gives the class scores."""
        return self.head(patches)

    def forward(self, patches: Float[Tensor, "batch patches dim"]) -> Float[Tensor, "batch patches classes"]:
        return self.compare(*self.read(patches))


class MaskTransformer(nn.Module):
    """Computes class scores as products of patches with class tokens that read them (section 3.2, equation 4).

    The class tokens stand after the patches.  `memory_dim` is the width of the patches that come in, `dim` its own.
    The score is LayerNorm, over the classes, of <z_patch W, c_class W'>, both scaled to length 1.
    """

    def __init__(
        self, *, classes: int, memory_dim: int, dim: int, depth: int, heads: int, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.classes = classes
        self.enter = nn.Linear(memory_dim, dim)
        self.class_tokens = nn.Parameter(torch.empty(1, classes, dim))
        self.layers = nn.ModuleList(
            PreNormLayer(
                dim=dim,
                attention=MultiHeadAttention(dim=dim, heads=heads, dropout=dropout),
                feedforward=FeedForward(dim=dim, hidden=4 * dim, dropout=dropout),
                dropout=dropout,
                eps=1e-5,
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)
        self.patch_projection = nn.Parameter(dim**-0.5 * torch.randn(dim, dim))
        self.class_projection = nn.Parameter(dim**-0.5 * torch.randn(dim, dim))
        self.mask_norm = nn.LayerNorm(classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.class_tokens, std=0.02)

    def read(self, patches: Float[Tensor, "batch patches memory_dim"]) -> tuple[Tensor, Tensor]:
        """Lets patches and class tokens read each other: (B, patches, D), (B, classes, D)."""
        tokens = torch.cat([self.enter(patches), self.class_tokens.expand(len(patches), -1, -1)], dim=1)
        for layer in self.layers:
            tokens = layer(tokens)
        seen, named = self.norm(tokens).split([patches.shape[1], self.classes], dim=1)
        return seen, named

    def compare(
        self, seen: Float[Tensor, "batch patches dim"], named: Float[Tensor, "batch {self.classes} dim"]
    ) -> Float[Tensor, "batch patches {self.classes}"]:
        """Computes the class scores of patches from their products with the class tokens."""
        seen = F.normalize(seen @ self.patch_projection, dim=2)
        named = F.normalize(named @ self.class_projection, dim=2)
        return self.mask_norm(seen @ named.transpose(1, 2))

    def forward(
        self, patches: Float[Tensor, "batch patches memory_dim"]
    ) -> Float[Tensor, "batch patches {self.classes}"]:
        return self.compare(*self.read(patches))


def decoder_of(
    *,
    classes: int,
    memory_dim: int,
    depth: int,
    dim: int | None = None,
    heads: int | None = None,
    dropout: float = 0.1,
) -> LinearDecoder | MaskTransformer:
    """Builds the mask transformer of `depth` layers (as wide as the encoder, heads of 64), or for 0 the linear map.

    Raises ValueError for a negative depth and for fewer than two classes.
    """
    if depth < 0 or classes < 2:
        raise ValueError(f"a decoder needs depth 0 (linear) or more and 2 classes or more, given {depth=}, {classes=}")
    if depth == 0:
        return LinearDecoder(dim=memory_dim, classes=classes)
    dim = dim or memory_dim
    heads = heads or max(1, dim // 64)
    return MaskTransformer(classes=classes, memory_dim=memory_dim, dim=dim, depth=depth, heads=heads, dropout=dropout)


def padded(images: Float[Tensor, "batch 3 height width"], multiple: int) -> Float[Tensor, "batch 3 taller wider"]:
    """Pads by zeros at the right and at the bottom until both sides are multiples."""
    height, width = images.shape[-2:]
    return F.pad(images, (0, -width % multiple, 0, -height % multiple))


def enlarged(
    masks: Float[Tensor, "batch classes rows columns"], size: tuple[int, int], cell: int
) -> Float[Tensor, "batch classes height width"]:
    """Scales masks by `cell`, bilinear, and cuts off what lies beyond an image of `size` (height, width)."""
    whole = (masks.shape[-2] * cell, masks.shape[-1] * cell)
    return F.interpolate(masks, size=whole, mode="bilinear")[:, :, : size[0], : size[1]]


def pixel_loss(
    logits: Float[Tensor, "batch classes height width"],
    labels: Integer[Tensor, "batch height width"],
    weights: Float[Tensor, " classes"] | None = None,
) -> dict[str, Tensor]:
    """Computes the cross-entropy of labelled pixels, and the share named rightly; each image counts the same.

    `weights` say how much a pixel of each class counts in the loss.  An image without labelled pixels adds nothing.
    Raises ValueError for labels that are no class, on the CPU; to look would make it wait for a GPU at each step, and
    there torch itself stops at them.
    """
    labelled = labels != VOID
    wrong = labels[labelled & ((labels < 0) | (labels >= logits.shape[1]))] if labels.device.type == "cpu" else None
    if wrong is not None and len(wrong):
        raise ValueError(f"labels go from 0 to {logits.shape[1] - 1}, or are {VOID} for void; given {int(wrong[0])}")
    each = F.cross_entropy(logits.float(), labels.long(), weight=weights, ignore_index=VOID, reduction="none")
    count = labelled.sum(dim=(1, 2)).clamp_min(1)
    right = ((logits.argmax(dim=1) == labels) & labelled).sum(dim=(1, 2)) / count
    return {"loss": (each.sum(dim=(1, 2)) / count).mean(), "accuracy": right.mean()}


class Segmenter(nn.Module, PyTorchModelHubMixin):
    """Computes class logits of every pixel with a ViT and a linear or mask-transformer decoder.

    `image_size`, `patch`, `dim`, `depth`, `heads`, `registers` and `positions` are the encoder's, as in
    `VisionTransformer`.  `decoder_depth=0` is the linear decoder; `decoder_dim` and `decoder_heads` default to the
    encoder's width and one head for 64 channels.  Images of any size run.  Raises ValueError for sizes that do not
    fit together.
    """

    def __init__(
        self,
        *,
        image_size: int | Sequence[int] = 512,
        patch: int = 16,
        dim: int = 384,
        depth: int = 12,
        heads: int = 6,
        classes: int = 150,
        decoder_depth: int = 2,
        decoder_dim: int | None = None,
        decoder_heads: int | None = None,
        registers: int = 0,
        positions: str = "segmenter",
    ) -> None:
        super().__init__()
        self.encoder = VisionTransformer(
            image_size=image_size,
            patch=patch,
            dim=dim,
            depth=depth,
            heads=heads,
            classes=0,
            registers=registers,
            positions=positions,
            eps=1e-5,  # though the ViTs it starts from were trained with 1e-6: the published code's
        )
        self.image_size, self.patch, self.classes = self.encoder.image_size, patch, classes
        self.decoder = decoder_of(
            classes=classes, memory_dim=dim, depth=decoder_depth, dim=decoder_dim, heads=decoder_heads
        )

    def masks(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch {self.classes} rows columns"]:
        """Gives the class scores of each patch; the last patches of a side may be part padding."""
        whole = padded(images, self.patch)
        rows, columns = whole.shape[-2] // self.patch, whole.shape[-1] // self.patch
        patches = self.encoder.tokens(whole)[:, 1 + self.encoder.registers :]
        return self.decoder(patches).transpose(1, 2).unflatten(2, (rows, columns))

    def forward(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch {self.classes} height width"]:
        """Gives the class logits of each pixel."""
        height, width = images.shape[-2:]
        return enlarged(self.masks(images), (height, width), self.patch)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Computes the cross-entropy of `batch["images"]` against `batch["labels"]` (B, H, W); 255 is void.

        `batch["weights"]`, one for each class, may say how much its pixels count.
        """
        return pixel_loss(self(batch["images"]), batch["labels"], batch.get("weights"))


def segmenter_tiny_16(**more: Any) -> Segmenter:
    """Seg-T/16, with the mask transformer Seg-T-Mask/16: 7 million parameters."""
    return Segmenter(**{"patch": 16, "dim": 192, "depth": 12, "heads": 3, **more})


def segmenter_small_16(**more: Any) -> Segmenter:
    """Seg-S/16: 26 million parameters with the mask transformer."""
    return Segmenter(**{"patch": 16, "dim": 384, "depth": 12, "heads": 6, **more})


def segmenter_small_32(**more: Any) -> Segmenter:
    """Seg-S/32, of the paper's comparison of patch sizes."""
    return Segmenter(**{"patch": 32, "dim": 384, "depth": 12, "heads": 6, **more})


def segmenter_base_16(**more: Any) -> Segmenter:
    """Seg-B/16: 103 million parameters with the mask transformer."""
    return Segmenter(**{"patch": 16, "dim": 768, "depth": 12, "heads": 12, **more})


def segmenter_base_32(**more: Any) -> Segmenter:
    """Seg-B/32, of the paper's comparison of patch sizes."""
    return Segmenter(**{"patch": 32, "dim": 768, "depth": 12, "heads": 12, **more})


def segmenter_base_8(**more: Any) -> Segmenter:
    """Seg-B/8, published with the linear decoder."""
    return Segmenter(**{"patch": 8, "dim": 768, "depth": 12, "heads": 12, "decoder_depth": 0, **more})


def segmenter_base_deit_16(**more: Any) -> Segmenter:
    """Seg-B†/16: the encoder is a distilled DeiT, whose distillation token comes along."""
    return Segmenter(**{"patch": 16, "dim": 768, "depth": 12, "heads": 12, "registers": 1, **more})


def segmenter_large_16(**more: Any) -> Segmenter:
    """Seg-L/16: 334 million parameters with the mask transformer; ADE20K crops of 640."""
    return Segmenter(**{"image_size": 640, "patch": 16, "dim": 1024, "depth": 24, "heads": 16, **more})
