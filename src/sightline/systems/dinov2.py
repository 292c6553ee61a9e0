"""DINOv2's Vision Transformer.

paper     DINOv2: Learning Robust Visual Features without Supervision, Oquab et al. 2023 (arXiv 2304.07193);
          Vision Transformers Need Registers, Darcet et al., ICLR 2024 (arXiv 2309.16588)
idea      A Vision Transformer trained without labels, whose features serve any task while frozen.
          Layer scale keeps deep models stable; the giant one has a SwiGLU feed-forward part.
          Registers give the model a place to put what belongs to no patch, and its attention becomes clean.
flow      images (B, 3, H, W) -> patches (B, N, D), N = (H // patch) (W // patch)
          -> [class | registers? | patches] + positions (B, 1 + R + N, D)
          -> `depth` pre-norm layers with layer scale -> final norm = `tokens(images)`
          -> [class, mean of patches] (B, 2 D) -> linear -> logits (B, classes); without classes: class token
differs   This is the encoder and the linear probe, not the self-supervised training; the token that stands
for
          masked patches is left out.  Query, key and value are three maps instead of one (the same numbers).
recipe    none: loads published weights (`sightline.load_checkpoint`)
"""

from collections.abc import Sequence
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from sightline.attention import MultiHeadAttention
from sightline.blocks.patches import PatchEmbedding
from sightline.blocks.positions import GridPositions
from sightline.blocks.transformer import FeedForward, PreNormLayer, SwiGLU

LAYER_SCALE = 1e-5  # where training starts; published weights bring their own


class DINOv2(nn.Module, PyTorchModelHubMixin):
    """Computes DINOv2 features of images, and logits of its linear probe where `classes` is given.

    `image_size` (side or (height, width)) is the size the positions are learned at; any other size runs,
    too. `hidden` is the feed-forward width (default 4 dim; the published SwiGLU takes two thirds of that,
    rounded up to a multiple of 8).  `positions`: "dino" as published without registers, "dinov2_registers"
    with them, "transformers" as transformers resizes without registers.  Raises ValueError for sizes that
    do not fit together.
    """

    def __init__(
        self,
        *,
        image_size: int | Sequence[int] = 518,
        patch: int = 14,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        hidden: int | None = None,
        swiglu: bool = False,
        registers: int = 0,
        classes: int = 0,
        positions: str = "dino",
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        if hidden is None:
            hidden = (4 * dim * 2 // 3 + 7) // 8 * 8 if swiglu else 4 * dim
        feedforward = SwiGLU if swiglu else FeedForward
        self.image_size, self.registers = (height, width), registers
        self.patches = PatchEmbedding(patch=patch, dim=dim)
        self.class_token = nn.Parameter(torch.empty(1, 1, dim))
        self.register_tokens = nn.Parameter(torch.empty(1, registers, dim)) if registers else None
        self.positions = GridPositions(image_size=(height, width), patch=patch, dim=dim, rule=positions)
        self.layers = nn.ModuleList(
            PreNormLayer(
                dim=dim,
                attention=MultiHeadAttention(dim=dim, heads=heads),
                feedforward=feedforward(dim=dim, hidden=hidden),
                layer_scale=LAYER_SCALE,
                eps=eps,
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim, eps=eps)
        self.head = nn.Linear(2 * dim, classes) if classes else None
        self.initialise()

    def initialise(self) -> None:
        """Draws the weights as DINOv2's code does: maps and positions N(0, 0.02), tokens N(0, 1e-6)."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.positions.table, std=0.02)
        nn.init.normal_(self.class_token, std=1e-6)
        if self.register_tokens is not None:
            nn.init.normal_(self.register_tokens, std=1e-6)

    def tokens(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch tokens dim"]:
        """Gives all tokens after the final norm: class, registers, patches, in this order."""
        patches = self.patches(images)
        place = self.positions(*images.shape[-2:])
        first = self.class_token + place[:, :1]
        if self.register_tokens is not None:
            first = torch.cat([first, self.register_tokens], dim=1)
        tokens = torch.cat([first.expand(len(images), -1, -1), patches + place[:, 1:]], dim=1)
        for layer in self.layers:
            tokens = layer(tokens)
        return self.norm(tokens)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch classes"]:
        """Gives the logits of the linear probe; without classes the class token's feature."""
        tokens = self.tokens(images)
        if self.head is None:
            return tokens[:, 0]
        mean = tokens[:, 1 + self.registers :].mean(dim=1)
        return self.head(torch.cat([tokens[:, 0], mean], dim=1))

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Computes the linear probe's cross-entropy of `batch["images"]` against `batch["labels"]`.

        Raises ValueError for a model without classes.
        """
        if self.head is None:
            raise ValueError("a model with classes=0 has no logits and no loss: build it with classes=...")
        logits, labels = self(batch["images"]), batch["labels"]
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        return {"loss": F.cross_entropy(logits, labels), "accuracy": accuracy}


def dinov2_small_14(**more: Any) -> DINOv2:
    """DINOv2 ViT-S/14: 22 million parameters."""
    return DINOv2(**{"dim": 384, "depth": 12, "heads": 6, **more})


def dinov2_base_14(**more: Any) -> DINOv2:
    """DINOv2 ViT-B/14: 87 million parameters."""
    return DINOv2(**{"dim": 768, "depth": 12, "heads": 12, **more})


def dinov2_large_14(**more: Any) -> DINOv2:
    """DINOv2 ViT-L/14: 304 million parameters."""
    return DINOv2(**{"dim": 1024, "depth": 24, "heads": 16, **more})


def dinov2_giant_14(**more: Any) -> DINOv2:
    """DINOv2 ViT-g/14: 1.1 billion parameters, with SwiGLU."""
    return DINOv2(**{"dim": 1536, "depth": 40, "heads": 24, "swiglu": True, **more})
