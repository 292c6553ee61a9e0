"""The controls of the recurrent attention model, as in the tables of its paper (Mnih et al. 2014).

`kind=full`    two hidden layers of `hidden` units, on the whole canvas
`kind=conv`    8 filters of 10 x 10 with a stride of 5, then a hidden layer: the paper's two-layer convolution
`kind=random`  RAM itself, its glimpses at places drawn evenly: what choosing them is worth

Trained by the same `Recipe` on the same canvases, batches and steps, so that the network is the only difference.
"""

from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from sightline.data.canvas import DIGIT, Canvases
from sightline.recipes import ram
from sightline.systems.ram import RAM

FRAME = ram
TINY_SYSTEM = {"kind": "full", "hidden": 32}


def full(image_size: int, hidden: int, classes: int) -> nn.Sequential:
    """Builds two hidden layers of ReLUs over all pixels."""
    first, second = nn.Linear(image_size**2, hidden), nn.Linear(hidden, hidden)
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), second, nn.ReLU(), nn.Linear(hidden, classes))


def convolution(image_size: int, hidden: int, classes: int) -> nn.Sequential:
    """Builds the paper's convolution (8 filters, 10 x 10, stride 5) and one hidden layer."""
    side = (image_size - 10) // 5 + 1
    layers = (nn.Conv2d(1, 8, 10, stride=5), nn.ReLU(), nn.Flatten(), nn.Linear(8 * side**2, hidden), nn.ReLU())
    return nn.Sequential(*layers, nn.Linear(hidden, classes))


class RandomGlimpses(nn.Module):
    """Computes class logits with RAM along places drawn evenly; its location and baseline heads rest."""

    def __init__(self, image_size: int, hidden: int, classes: int, **retina: int) -> None:
        super().__init__()
        halves = {"what": hidden // 2, "where": hidden - hidden // 2}
        self.ram = RAM(image_size=image_size, classes=classes, **halves, **retina)

    def forward(self, images: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch classes"]:
        return self.ram(images, torch.rand(len(images), self.ram.glimpses, 2, device=images.device) * 2 - 1).log_probs


class Control(nn.Module, PyTorchModelHubMixin):
    """Computes class log-probabilities of a canvas with one of the controls; ValueError for another `kind`.

    `glimpses`, `patch` and `scales` are those of `kind="random"`, whose core is `hidden` wide.
    """

    def __init__(
        self,
        *,
        kind: str = "random",
        image_size: int = 60,
        hidden: int = 256,
        glimpses: int = 6,
        patch: int = 12,
        scales: int = 3,
        classes: int = 10,
    ) -> None:
        super().__init__()
        if kind not in ("full", "conv", "random"):
            raise ValueError(f"kind must be full, conv or random, given {kind!r}")
        self.image_size = image_size
        if kind == "random":
            retina = {"glimpses": glimpses, "patch": patch, "scales": scales}
            self.net: nn.Module = RandomGlimpses(image_size, hidden, classes, **retina)
        else:
            self.net = {"full": full, "conv": convolution}[kind](image_size, hidden, classes)

    def forward(self, images: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch classes"]:
        return F.log_softmax(self.net(images), dim=1)

    def predict(
        self, images: Float[Tensor, "batch 1 height width"], copies: int = 10
    ) -> Float[Tensor, "batch classes"]:
        """Computes log-probabilities, of random glimpses averaged over `copies` paths."""
        count = copies if isinstance(self.net, RandomGlimpses) else 1
        return torch.stack([self(images) for _ in range(count)]).mean(dim=0)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Computes the cross-entropy of `batch["images"]` against `batch["labels"]`."""
        return {"loss": F.nll_loss(self(batch["images"]), batch["labels"])}


def build(data: Canvases | None, **sizes: Any) -> Control:
    """Builds the control for the canvas of the data; the retina of random glimpses as recipes/ram.py has it."""
    if data is None:
        return Control(**sizes)
    usual = {"image_size": data.side} | ({"patch": 8, "scales": 1} if data.side == DIGIT else {})
    return Control(**usual | sizes)
