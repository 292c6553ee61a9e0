"""DINO: a network learns to see without labels, from a teacher that is the moving average of itself.

paper     Emerging Properties in Self-Supervised Vision Transformers, Caron et al., ICCV 2021 (arXiv 2104.14294)
idea      Student and teacher see different crops of a picture; the student predicts what the teacher says of it.
          Nobody says what the answers mean: the teacher's are centred, so that no answer always wins, and sharpened,
          so that they are not all alike.
          What such a Vision Transformer attends to is the object, though no label ever named one.
flow      views: 2 global (B, 3, S, S) and more local crops (B, 3, s, s)
          -> student(all views) (views, B, K), teacher(global views) (2, B, K), K prototypes
          -> Σ H(softmax((teacher - centre) / τ_t), log softmax(student / τ_s)) over pairs of different views
          -> centre and teacher follow
          images (B, 3, H, W) -> teacher's backbone -> features (B, D)
differs   The Vision Transformer is drawn as in its own paper, not from N(0, 0.02); positions are resized by DINO's own
          rule.  The head's last layer stores weight_g and weight_v as `length` and `direction`.
recipe    recipes/dino.py
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from sightline.blocks.momentum import follow, teacher_of
from sightline.blocks.transformer import spread_drop_path
from sightline.objectives.self_distillation import Centre, self_distillation, teacher_entropy
from sightline.systems.backbones import Backbone, backbone_of, encode_views, unit, width_of
from sightline.systems.vit import VisionTransformer

GLOBAL_VIEWS = 2
SMALL = {"patch": 16, "dim": 384, "heads": 6, "positions": "dino"}  # ViT-S/16


class UnitLinear(nn.Module):
    """Computes length · (direction / |direction|) x, row by row: a linear map whose rows have a length of their own.

    With `fixed` the lengths stay 1 (the paper's normalised last layer).
    """

    def __init__(self, *, dim: int, out: int, fixed: bool = True) -> None:
        super().__init__()
        self.direction = nn.Parameter(nn.init.trunc_normal_(torch.empty(out, dim), std=0.02))
        self.length = nn.Parameter(torch.ones(out, 1), requires_grad=not fixed)

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch out"]:
        with torch.autocast(x.device.type, enabled=False):  # the teacher's scores are divided by 0.04
            return F.linear(x.float(), self.length * F.normalize(self.direction, dim=1))


class DINOHead(nn.Module):
    """Computes scores of prototypes: three linear maps with GELU, length 1, then a linear map with unit rows.

    `norm` puts a batch norm after the first two maps, as the paper does for convolutional backbones.
    """

    def __init__(
        self,
        *,
        dim: int,
        prototypes: int = 65536,
        hidden: int = 2048,
        bottleneck: int = 256,
        norm: bool = False,
        fixed: bool = True,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for given in (dim, hidden):
            layers += [nn.Linear(given, hidden), *([nn.BatchNorm1d(hidden)] if norm else []), nn.GELU()]
        self.mlp = nn.Sequential(*layers, nn.Linear(hidden, bottleneck))
        self.last = UnitLinear(dim=bottleneck, out=prototypes, fixed=fixed)
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, features: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch prototypes"]:
        flat = features.flatten(0, -2)  # batch norms know two axes
        scores = self.last(unit(self.mlp(flat)))
        return scores.unflatten(0, features.shape[:-1])


class Network(nn.Module):
    """A backbone and a head on top of it: views -> scores (views, B, prototypes)."""

    def __init__(self, *, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, views: Sequence[Float[Tensor, "batch 3 _h _w"]]) -> Float[Tensor, "views batch prototypes"]:
        return self.head(encode_views(self.backbone, views))


class DINO(nn.Module, PyTorchModelHubMixin):
    """Computes features of images with the teacher's backbone; learns them from views without labels.

    `backbone` is told as plain values ({"architecture": "vit", "dim": 192, …}) or handed over as a network without a
    head.  `prototypes`, `hidden`, `bottleneck`, `head_norm` and `fixed` are those of `DINOHead`; `drop_path` is the
    student's stochastic depth (Vision Transformers only).  `centre_momentum=1` leaves the centring out.  The module's
    own `centre` is saved with it.
    """

    def __init__(
        self,
        *,
        backbone: Backbone | None = None,
        prototypes: int = 65536,
        hidden: int = 2048,
        bottleneck: int = 256,
        head_norm: bool = False,
        fixed: bool = True,
        drop_path: float = 0.1,
        centre_momentum: float = 0.9,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.04,
    ) -> None:
        super().__init__()
        network = backbone_of(SMALL if backbone is None else backbone)
        head = DINOHead(
            dim=width_of(network),
            prototypes=prototypes,
            hidden=hidden,
            bottleneck=bottleneck,
            norm=head_norm,
            fixed=fixed,
        )
        self.student = Network(backbone=network, head=head)
        self.teacher = teacher_of(self.student)
        for branch, rate in ((self.teacher, 0.0), (self.student, drop_path)):
            if isinstance(branch.backbone, VisionTransformer):
                spread_drop_path(list(branch.backbone.layers), rate)
        self.centre = Centre(prototypes=prototypes, momentum=centre_momentum)
        self.student_temperature, self.teacher_temperature = student_temperature, teacher_temperature

    @property
    def learned(self) -> nn.Module:
        """The network that is used afterwards: the teacher's backbone."""
        return self.teacher.get_submodule("backbone")

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """Gives the teacher's features."""
        return self.learned(images)

    def loss(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Computes the self-distillation loss of `batch["views"]`, the first two of which the teacher sees.

        `batch["temperature"]`, if given, is the teacher's at this step.  Beside the loss, "each" and "mean" tell of
        collapse (`teacher_entropy`).  In training mode the centre moves, after the loss.
        """
        views, temperature = batch["views"], batch.get("temperature", self.teacher_temperature)
        with torch.no_grad():
            taught = self.teacher(views[:GLOBAL_VIEWS])
        said = self.student(views)
        loss = self_distillation(
            said,
            taught,
            self.centre.value,
            student_temperature=self.student_temperature,
            teacher_temperature=temperature,
        )
        told = teacher_entropy(taught, self.centre.value, teacher_temperature=temperature)
        if self.training:
            self.centre.update(taught.flatten(0, 1))
        return {"loss": loss, **told}

    def follow(self, momentum: float) -> None:
        """Moves the teacher towards the student: momentum of it stays.  Comes after the student's step."""
        follow(self.teacher, self.student, momentum)


def dino_small_16(**more: Any) -> DINO:
    """DINO with ViT-S/16: the paper's main model."""
    return DINO(**{"backbone": SMALL, **more})


def dino_small_8(**more: Any) -> DINO:
    """DINO with ViT-S/8."""
    return DINO(**{"backbone": {**SMALL, "patch": 8}, **more})


def dino_base_16(**more: Any) -> DINO:
    """DINO with ViT-B/16."""
    return DINO(**{"backbone": {"patch": 16, "positions": "dino"}, **more})


def dino_base_8(**more: Any) -> DINO:
    """DINO with ViT-B/8."""
    return DINO(**{"backbone": {"patch": 8, "positions": "dino"}, **more})


def dino_resnet_50(**more: Any) -> DINO:
    """DINO with ResNet-50, batch norms in the head and lengths that are learned, as in the published arguments."""
    backbone = {"architecture": "resnet", "blocks": (3, 4, 6, 3), "bottleneck": True}
    return DINO(**{"backbone": backbone, "head_norm": True, "prototypes": 60000, **more})
