"""PS-ViT: a Vision Transformer that moves the points where it reads the image.

paper     Vision Transformer with Progressive Sampling, Yue et al., ICCV 2021 (arXiv 2108.01684)
idea      A fixed grid of patches cuts objects anywhere and spends as many tokens on the ground as on them.
          Read a feature map at points instead; after each look, a layer says where every point goes next.
          Reading between the cells is differentiable, so the way is learned with the rest.
flow      images (B, 3, H, W) -> convolutional stem: features (B, D, H / 4, W / 4)
          -> points p_0: `points` x `points` grid (B, N, 2), (row, column) in cells
          -> `iterations` times: F(p_t) + position(p_t) + T_{t-1} (B, N, D) -> pre-norm layer: T_t
             -> p_{t+1} = p_t + linear(T_t); the last iteration moves nothing
          -> [class | T] (B, 1 + N, D) -> `depth` - `iterations` further layers -> norm -> class token -> logits
differs   Follows the published code, whose weights load: the position of a point is one shared linear map of its place,
          and no gradient passes from a point to the next but through the reading.  Query, key and value are three maps.
          The published backward pass moves places outside the map to its edge first; here gradients are those of the
          forward pass.  Any image size runs: the grid follows the feature map.  No dropout; stochastic depth through
          `blocks.transformer.spread_drop_path`.
recipe    recipes/ps_vit.py, its controls (fixed grid, random offsets) recipes/ps_vit_control.py
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from sightline.attention import MultiHeadAttention
from sightline.attention.progressive import grid_points, sample
from sightline.blocks.transformer import FeedForward, PreNormLayer

STRIDE = 4  # pixels of the image to a cell of the feature map
EPS = 1e-5


class Bottleneck(nn.Module):
    """Computes relu(shortcut(x) + three convolutions, 1 x 1, 3 x 3, 1 x 1); the shortcut maps where widths differ."""

    def __init__(self, *, channels: int, inner: int, out: int) -> None:
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(channels, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.second, self.second_norm = nn.Conv2d(inner, inner, 3, padding=1, bias=False), nn.BatchNorm2d(inner)
        self.third, self.third_norm = nn.Conv2d(inner, out, 1, bias=False), nn.BatchNorm2d(out)
        mapped = nn.Sequential(nn.Conv2d(channels, out, 1, bias=False), nn.BatchNorm2d(out))
        self.shortcut = nn.Identity() if channels == out else mapped

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch out height width"]:
        branch = F.relu(self.first_norm(self.first(x)))
        branch = F.relu(self.second_norm(self.second(branch)))
        return F.relu(self.third_norm(self.third(branch)) + self.shortcut(x))


class Stem(nn.Module):
    """Computes a feature map at a quarter of the size: 7 x 7 convolution, pooling, two bottlenecks.

    `widths` are the channels of the convolution, the inside of the first bottleneck, its output, and the inside of the
    second, which gives `dim`.
    """

    def __init__(self, *, widths: Sequence[int], dim: int) -> None:
        super().__init__()
        outer, inner, between, second = widths
        self.convolution = nn.Conv2d(3, outer, 7, stride=2, padding=3, bias=False)
        self.norm = nn.BatchNorm2d(outer)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.blocks = nn.Sequential(
            Bottleneck(channels=outer, inner=inner, out=between), Bottleneck(channels=between, inner=second, out=dim)
        )

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim rows columns"]:
        return self.blocks(self.pool(F.relu(self.norm(self.convolution(images)))))


class SamplingStep(nn.Module):
    """One look: reads the map at the points, mixes what was read, and says by how much each point moves next.

    `moves=False` (the last look) has no offsets.  Offsets begin at zero, so an untrained network reads the grid.
    """

    def __init__(self, *, layer: PreNormLayer, dim: int, moves: bool) -> None:
        super().__init__()
        self.layer = layer
        self.offset = nn.Linear(dim, 2) if moves else None

    def forward(
        self,
        features: Float[Tensor, "batch dim height width"],
        points: Float[Tensor, "batch points 2"],
        position: Float[Tensor, "batch points dim"],
        before: Float[Tensor, "batch points dim"] | None,
    ) -> tuple[Float[Tensor, "batch points dim"], Float[Tensor, "batch points 2"] | None]:
        tokens = sample(features, points) + position
        tokens = self.layer(tokens if before is None else tokens + before)
        return tokens, None if self.offset is None else self.offset(tokens)


class Sampled(NamedTuple):
    """What the sampling gives: tokens, and the points read at each look, (row, column) in cells of the feature map."""

    tokens: Float[Tensor, "batch points dim"]
    points: Float[Tensor, "batch iterations points 2"]


class PSViT(nn.Module, PyTorchModelHubMixin):
    """Computes class logits of images from a feature map read at points that move `iterations` - 1 times.

    `points` x `points` are read at each look; `depth` counts all layers, those of the looks among them.  `hidden` is
    the MLP's width (default 3 dim), `stem` the four inner widths of `Stem`.  `image_size` is what weights were trained
    at.  Raises ValueError for sizes that do not fit together.
    """

    moves_points = True  # for the lens: these tokens are no cells of a grid

    def __init__(
        self,
        *,
        image_size: int = 224,
        points: int = 14,
        iterations: int = 4,
        dim: int = 384,
        depth: int = 14,
        heads: int = 6,
        hidden: int | None = None,
        stem: Sequence[int] = (64, 64, 256, 64),
        classes: int = 1000,
    ) -> None:
        super().__init__()
        if not 1 <= iterations <= depth or points < 1 or len(stem) != 4:
            raise ValueError(
                f"PS-ViT needs 1 <= iterations <= depth, points of 1 or more and four stem widths, given "
                f"{iterations=}, {depth=}, {points=}, stem={tuple(stem)}"
            )
        self.image_size, self.grid, self.hidden = image_size, (points, points), hidden or 3 * dim

        def layer() -> PreNormLayer:
            attention = MultiHeadAttention(dim=dim, heads=heads, bias=False)
            return PreNormLayer(
                dim=dim, attention=attention, feedforward=FeedForward(dim=dim, hidden=self.hidden), eps=EPS
            )

        self.stem = Stem(widths=stem, dim=dim)
        self.position = nn.Linear(2, dim)
        self.steps = nn.ModuleList(
            SamplingStep(layer=layer(), dim=dim, moves=number + 1 < iterations) for number in range(iterations)
        )
        self.class_token = nn.Parameter(torch.empty(1, 1, dim))
        self.layers = nn.ModuleList(layer() for _ in range(depth - iterations))
        self.norm = nn.LayerNorm(dim, eps=EPS)
        self.head = nn.Linear(dim, classes)
        self.initialise()

    def initialise(self, deviation: float = 0.02) -> None:
        """Draws linear maps and the class token from N(0, 0.02), as the published code does; biases, offsets are zero.

        Narrow networks learn sooner from a larger `deviation`.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=deviation)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.class_token, std=0.02)
        for step in self.steps:
            if isinstance(step.offset, nn.Linear):
                nn.init.zeros_(step.offset.weight)

    def move(
        self, points: Float[Tensor, "batch points 2"], offset: Float[Tensor, "batch points 2"]
    ) -> Float[Tensor, "batch points 2"]:
        """Computes p_{t+1} = p_t + o_t; the gradient of a look reaches the last offset alone."""
        return points.detach() + offset.float()

    def look(self, features: Float[Tensor, "batch dim height width"]) -> Sampled:
        """Reads the feature map at the grid, then where each look sends the points."""
        height, width = features.shape[-2:]
        points = grid_points(self.grid, (height, width), features.device).expand(len(features), -1, -1)
        tokens: Tensor | None = None
        path: list[Tensor] = []
        for step in self.steps:
            path.append(points.detach())
            row, column = path[-1].unbind(dim=2)
            where = torch.stack([row / height, column / width], dim=2)  # plain numbers, for which no device must wait
            tokens, offset = step(features, points, self.position(where), tokens)
            points = points if offset is None else self.move(points, offset)
        assert tokens is not None, "there is at least one look"
        return Sampled(tokens, torch.stack(path, dim=1))

    def read(self, images: Float[Tensor, "batch 3 height width"]) -> Sampled:
        """Reads images: the stem's feature map, at points that move."""
        return self.look(self.stem(images))

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch classes"]:
        """Gives the logits."""
        return self.answer(self.read(images))

    def answer(self, sampled: Sampled) -> Float[Tensor, "batch classes"]:
        """Computes the logits from what was read: further layers, final norm, and the head on the class token."""
        tokens = torch.cat([self.class_token.expand(len(sampled.tokens), -1, -1), sampled.tokens], dim=1)
        for layer in self.layers:
            tokens = layer(tokens)
        return self.head(self.norm(tokens[:, 0]))

    @staticmethod
    def places(points: Float[Tensor, "*lead 2"], height: int, width: int | None = None) -> Float[Tensor, "*lead 2"]:
        """Computes where points lie on an image of this size: (x, y) in 0..1.

        Cell j of the stem reads around the middle of pixel 4 j.  Points sent outside lie outside.
        """
        size = torch.tensor([height, height if width is None else width], device=points.device)
        return ((points * STRIDE + 0.5) / size).flip(-1)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Computes the cross-entropy of `batch["images"]` against `batch["labels"]` (numbers), and the accuracy."""
        logits = self(batch["images"])
        right = (logits.argmax(dim=1) == batch["labels"]).float().mean()
        return {"loss": F.cross_entropy(logits, batch["labels"]), "accuracy": right}


def ps_vit_tiny_14(**more: Any) -> PSViT:
    """PS-ViT-Ti/14 (4.8 million parameters; published: 75.6 % on ImageNet)."""
    return PSViT(**{"points": 14, "dim": 192, "depth": 12, "heads": 3, "stem": (64, 64, 192, 64), **more})


def ps_vit_base_10(**more: Any) -> PSViT:
    """PS-ViT-B/10 (21.3 million parameters; published: 80.6 % on ImageNet)."""
    return PSViT(**{"points": 10, **more})


def ps_vit_base_14(**more: Any) -> PSViT:
    """PS-ViT-B/14 (21.3 million parameters; published: 81.7 % on ImageNet)."""
    return PSViT(**{"points": 14, **more})


def ps_vit_base_16(**more: Any) -> PSViT:
    """PS-ViT-B/16 (21.3 million parameters), of the published code."""
    return PSViT(**{"points": 16, **more})


def ps_vit_base_18(**more: Any) -> PSViT:
    """PS-ViT-B/18 (21.3 million parameters; published: 82.3 % on ImageNet)."""
    return PSViT(**{"points": 18, **more})
