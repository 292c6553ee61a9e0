"""Vision Transformer.

paper     An Image is Worth 16x16 Words, Dosovitskiy et al., ICLR 2021 (arXiv 2010.11929)
idea      Cut an image into patches, treat each as a word, and let a plain Transformer encoder read them.
          One extra learned token, the class token, gathers what the head needs.
          No convolution beyond the cut, so attention alone decides what is near what.
flow      images (B, 3, H, W)
          -> patches (B, N, D), N = (H // patch) (W // patch)
          -> [class | registers? | patches] + positions (B, 1 + R + N, D)
          -> `depth` pre-norm layers of self-attention and GELU MLP -> final norm = `tokens(images)`
          -> class token -> head -> logits (B, classes)
differs   Query, key and value are three maps, not one fused matrix (the numbers are the same).
          Images of any size run, non-square ones too: positions are resized on the fly by the rule the
          weights were published with (`positions=`).
          Registers (Darcet et al. 2024) are learned tokens that belong to no patch.  DeiT's distillation
          token (Touvron et al. 2021) is the first register, read by a head of its own.
          No dropout; stochastic depth through `blocks.transformer.spread_drop_path(model.layers, rate)`.
recipe    recipes/vit.py
top-1     41.1 % on 40 classes of Tiny ImageNet (chance 2 %), 2.7 M parameters, 89 minutes of one CPU core; a CNN
          of the same size and budget reaches more (see the card of the bundled weights)
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
from sightline.blocks.transformer import FeedForward, PreNormLayer

HEADS_ON_TOP = ("class", "tanh", "distilled")


class VisionTransformer(nn.Module, PyTorchModelHubMixin):
    """Computes class logits of images with a Transformer encoder over patches.

    `image_size` (side or (height, width)) is the size the positions are learned at; any other size runs,
    too. `hidden` is the MLP's width (default 4 dim).  `classes=0` leaves the head out: `forward` then gives
    the class token's feature.  `head`: "class" (linear on the class token), "tanh" (linear, tanh, linear:
    the paper's head while pretraining), "distilled" (DeiT: a second linear head reads the first register,
    its distillation token; logits are the mean). `positions` names the rule that resizes positions, one of
    blocks.positions.RESIZE. Raises ValueError for sizes that do not fit together.
    """

    def __init__(
        self,
        *,
        image_size: int | Sequence[int] = 224,
        patch: int = 16,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        hidden: int | None = None,
        classes: int = 1000,
        head: str = "class",
        registers: int = 0,
        positions: str = "timm",
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        if head not in HEADS_ON_TOP:
            raise ValueError(f"head must be one of {', '.join(HEADS_ON_TOP)}, given {head!r}")
        if head == "distilled" and registers < 1:
            raise ValueError('head="distilled" reads the first register: give registers=1 (DeiT) or more')
        self.image_size, self.registers = (height, width), registers

        self.patches = PatchEmbedding(patch=patch, dim=dim)
        self.class_token = nn.Parameter(torch.empty(1, 1, dim))
        self.register_tokens = nn.Parameter(torch.empty(1, registers, dim)) if registers else None
        self.positions = GridPositions(image_size=(height, width), patch=patch, dim=dim, rule=positions)
        self.layers = nn.ModuleList(
            PreNormLayer(
                dim=dim,
                attention=MultiHeadAttention(dim=dim, heads=heads),
                feedforward=FeedForward(dim=dim, hidden=hidden or 4 * dim),
                eps=eps,
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim, eps=eps)
        self.before_head = nn.Sequential(nn.Linear(dim, dim), nn.Tanh()) if head == "tanh" else nn.Identity()
        self.head = nn.Linear(dim, classes) if classes else nn.Identity()
        self.distilled_head = nn.Linear(dim, classes) if classes and head == "distilled" else None
        self.initialise()

    def initialise(self) -> None:
        """Draws the weights as the paper's code does.

        Xavier-uniform for attention and MLP, MLP biases N(0, 1e-6), positions N(0, 0.02), class token and
        head zero, patches LeCun-normal; registers N(0, 0.02), as DeiT's distillation token.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
            if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, FeedForward):
                nn.init.normal_(module.expand.bias, std=1e-6)
                nn.init.normal_(module.contract.bias, std=1e-6)
        weight = self.patches.project.weight
        fan_in = weight[0].numel()
        # a normal cut at two deviations has 0.8796 of its deviation left; LeCun's rule wants 1 / sqrt(fan_in)
        spread = fan_in**-0.5 / 0.87962566103423978
        nn.init.trunc_normal_(weight, std=spread, a=-2 * spread, b=2 * spread)
        nn.init.normal_(self.positions.table, std=0.02)
        nn.init.zeros_(self.class_token)
        if self.register_tokens is not None:
            nn.init.normal_(self.register_tokens, std=0.02)
        for top in (self.head, self.distilled_head):
            if isinstance(top, nn.Linear):
                nn.init.zeros_(top.weight)
                nn.init.zeros_(top.bias)

    def embed(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch tokens dim"]:
        """Gives what the first layer reads: class token, registers, patches, with their positions."""
        patches = self.patches(images)
        place = self.positions(*images.shape[-2:])
        first = self.class_token + place[:, :1]
        if self.register_tokens is not None:
            first = torch.cat([first, self.register_tokens], dim=1)  # a learned token needs no position
        return torch.cat([first.expand(len(images), -1, -1), patches + place[:, 1:]], dim=1)

    def tokens(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch tokens dim"]:
        """Gives all tokens after the final norm: class, registers, patches, in this order."""
        tokens = self.embed(images)
        for layer in self.layers:
            tokens = layer(tokens)
        return self.norm(tokens)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch classes"]:
        """Gives the logits; without classes the class token's feature."""
        tokens = self.tokens(images)
        logits = self.head(self.before_head(tokens[:, 0]))
        if self.distilled_head is not None:
            logits = (logits + self.distilled_head(tokens[:, 1])) / 2
        return logits

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Computes the cross-entropy of `batch["images"]` against `batch["labels"]`, and the accuracy.

        Labels are class numbers (B,) or probabilities (B, classes).  With a distillation token, the second
        head learns `batch["teacher"]` (class numbers, DeiT's hard distillation, equation 3), or the labels
        where none is given.  Raises ValueError for a model without classes.
        """
        if not isinstance(self.head, nn.Linear):
            raise ValueError("a model with classes=0 has no logits and no loss: build it with classes=...")
        tokens = self.tokens(batch["images"])
        logits, labels = self.head(self.before_head(tokens[:, 0])), batch["labels"]
        loss = F.cross_entropy(logits, labels)
        if self.distilled_head is not None:
            second = self.distilled_head(tokens[:, 1])
            loss = (loss + F.cross_entropy(second, batch.get("teacher", labels))) / 2
            logits = (logits + second) / 2
        truth = labels if labels.ndim == 1 else labels.argmax(dim=1)
        return {"loss": loss, "accuracy": (logits.argmax(dim=1) == truth).float().mean()}


def vit_tiny_16(**more: Any) -> VisionTransformer:
    """ViT-Ti/16 (DeiT's sizes): 5.7 million parameters."""
    return VisionTransformer(**{"patch": 16, "dim": 192, "depth": 12, "heads": 3, **more})


def vit_small_16(**more: Any) -> VisionTransformer:
    """ViT-S/16 (DeiT's sizes): 22 million parameters."""
    return VisionTransformer(**{"patch": 16, "dim": 384, "depth": 12, "heads": 6, **more})


def vit_small_8(**more: Any) -> VisionTransformer:
    """ViT-S/8, as DINO trained it: 22 million parameters."""
    return VisionTransformer(**{"patch": 8, "dim": 384, "depth": 12, "heads": 6, **more})


def vit_base_32(**more: Any) -> VisionTransformer:
    """ViT-B/32 (the paper's table 1): 88 million parameters."""
    return VisionTransformer(**{"patch": 32, "dim": 768, "depth": 12, "heads": 12, **more})


def vit_base_16(**more: Any) -> VisionTransformer:
    """ViT-B/16 (the paper's table 1): 87 million parameters."""
    return VisionTransformer(**{"patch": 16, "dim": 768, "depth": 12, "heads": 12, **more})


def vit_base_8(**more: Any) -> VisionTransformer:
    """ViT-B/8, as DINO trained it: 87 million parameters."""
    return VisionTransformer(**{"patch": 8, "dim": 768, "depth": 12, "heads": 12, **more})


def vit_large_32(**more: Any) -> VisionTransformer:
    """ViT-L/32 (the paper's table 1): 307 million parameters."""
    return VisionTransformer(**{"patch": 32, "dim": 1024, "depth": 24, "heads": 16, **more})


def vit_large_16(**more: Any) -> VisionTransformer:
    """ViT-L/16 (the paper's table 1): 304 million parameters."""
    return VisionTransformer(**{"patch": 16, "dim": 1024, "depth": 24, "heads": 16, **more})


def vit_huge_14(**more: Any) -> VisionTransformer:
    """ViT-H/14 (the paper's table 1): 632 million parameters."""
    return VisionTransformer(**{"patch": 14, "dim": 1280, "depth": 32, "heads": 16, **more})
