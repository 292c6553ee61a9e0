"""Recurrent attention model: looks at a large image through a few small glimpses, and chooses each itself.

paper     Recurrent Models of Visual Attention, Mnih et al., NIPS 2014 (arXiv 1406.6247)
idea      Never read the whole image: cut a small retina-like glimpse, remember it, decide where to look next.
          Where to look is a hard choice, so it is learned from the reward of a right answer (REINFORCE).
          What is read, and so the cost, does not depend on the size of the image.
flow      images (B, C, H, W), first place l_0 uniform in [-1, 1]²
          -> retina rho(x, l_t) (B, scales C, patch, patch)
          -> glimpse g_t = relu(relu(what) W + relu(where) W') (B, hidden), hidden = what + where
          -> core h_t = relu(W g_t + W' h_{t-1}) (B, hidden)
          -> place l_{t+1} ~ N(tanh(locator(h_t)), std²), clamped after its density is taken; baseline b_t
          -> after the last glimpse: log softmax of the classes (B, classes)
differs   Follows the public PyTorch code kevinzakka/recurrent-visual-attention, whose shipped weights load: the
          location and baseline heads read a detached h_t, and the location head has a hidden layer (`locator=0`: the
          one linear map of the paper and of the shipped weights).  The place drawn after the last glimpse, which
          nothing reads, takes no part in the loss.
recipe    recipes/ram.py, its controls recipes/ram_control.py
error     0.58 % on MNIST, ten paths averaged as published (a single path: 1.6 %), six glimpses of 8 x 8, 36 minutes of
          a shared CPU core; the same weights along ten random paths: 1.71 % (the card of the weights has more)
"""

from typing import NamedTuple

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from sightline.attention.glimpse import check_retina, retina
from sightline.objectives.policy_gradient import normal_log_density, reinforce

POLICY_WEIGHT = 0.01  # of the published code; without effect under Adam, as the location head has no other gradient


class GlimpseNetwork(nn.Module):
    """Computes g = relu(W_what relu(fc(reading)) + W_where relu(fc(place))): what was seen joined with where."""

    def __init__(self, *, reading: int, what: int, where: int) -> None:
        super().__init__()
        self.what_in, self.where_in = nn.Linear(reading, what), nn.Linear(2, where)
        self.what_out, self.where_out = nn.Linear(what, what + where), nn.Linear(where, what + where)

    def forward(
        self, reading: Float[Tensor, "batch parts patch patch"], place: Float[Tensor, "batch 2"]
    ) -> Float[Tensor, "batch hidden"]:
        what, where = F.relu(self.what_in(reading.flatten(1))), F.relu(self.where_in(place))
        return F.relu(self.what_out(what) + self.where_out(where))


class Core(nn.Module):
    """Computes h_t = relu(W g_t + W' h_{t-1}), what is known after the glimpses so far."""

    def __init__(self, *, hidden: int) -> None:
        super().__init__()
        self.from_glimpse, self.from_state = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)

    def forward(
        self, glimpse: Float[Tensor, "batch hidden"], state: Float[Tensor, "batch hidden"]
    ) -> Float[Tensor, "batch hidden"]:
        return F.relu(self.from_glimpse(glimpse) + self.from_state(state))


class Locator(nn.Module):
    """Computes the mean of the next place, tanh(linear(relu(linear(h)))), or tanh(linear(h)) where `width` is 0.

    No gradient passes on to the state.
    """

    def __init__(self, *, hidden: int, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(hidden, width) if width else None
        self.out = nn.Linear(width or hidden, 2)

    def forward(self, state: Float[Tensor, "batch hidden"]) -> Float[Tensor, "batch 2"]:
        state = state.detach()
        return torch.tanh(self.out(state if self.inner is None else F.relu(self.inner(state))))


class Reading(NamedTuple):
    """What one pass over images gives: class log-probabilities, and the path that led to them.

    `log_densities` are of the places chosen, places[:, 1:]; `baselines` is the reward expected after each glimpse.
    """

    log_probs: Float[Tensor, "batch classes"]
    places: Float[Tensor, "batch glimpses 2"]
    log_densities: Float[Tensor, "batch choices"]
    baselines: Float[Tensor, "batch glimpses"]


class RAM(nn.Module, PyTorchModelHubMixin):
    """Computes class log-probabilities from `glimpses` glimpses of an image, each where the one before pointed.

    A glimpse is `scales` windows of `patch` pixels, each `factor` times as wide as the one before.  `what` and `where`
    are the widths of the glimpse network's two halves; the core is as wide as both.  `locator` is the width of the
    location head's hidden layer (0: none), `std` the deviation of places around its mean.  `image_size` is the canvas
    that the weights were trained on; any other runs.  Raises ValueError for sizes that make no retina.
    """

    def __init__(
        self,
        *,
        image_size: int = 28,
        channels: int = 1,
        patch: int = 8,
        scales: int = 1,
        factor: int = 2,
        glimpses: int = 6,
        what: int = 128,
        where: int = 128,
        locator: int = 128,
        std: float = 0.17,
        classes: int = 10,
    ) -> None:
        super().__init__()
        check_retina(patch, scales, factor)
        if glimpses < 1 or std <= 0:
            raise ValueError(f"a path needs at least one glimpse and a positive std, given {glimpses=}, {std=}")
        self.image_size, self.glimpses, self.std, self.hidden = image_size, glimpses, std, what + where
        self.patch, self.scales, self.factor = patch, scales, factor
        self.glimpse = GlimpseNetwork(reading=scales * channels * patch**2, what=what, where=where)
        self.core = Core(hidden=self.hidden)
        self.locator = Locator(hidden=self.hidden, width=locator)
        self.baseline = nn.Linear(self.hidden, 1)
        self.classifier = nn.Linear(self.hidden, classes)

    def look(
        self,
        images: Float[Tensor, "batch channels height width"],
        place: Float[Tensor, "batch 2"],
        state: Float[Tensor, "batch hidden"],
    ) -> Float[Tensor, "batch hidden"]:
        """Takes one glimpse at `place` and gives the new state."""
        seen = retina(images, place, patch=self.patch, scales=self.scales, factor=self.factor)
        return self.core(self.glimpse(seen, place), state)

    def choose(self, state: Float[Tensor, "batch hidden"]) -> tuple[Float[Tensor, "batch 2"], Float[Tensor, " batch"]]:
        """Draws the next place; its log-density is that of the draw before it was clamped to the image."""
        mean = self.locator(state).float()  # half precision would lay the draws on a coarse lattice
        draw = (mean + self.std * torch.randn_like(mean)).detach()
        return draw.clamp(-1, 1), normal_log_density(draw, mean, self.std)

    def forward(
        self,
        images: Float[Tensor, "batch channels height width"],
        places: Float[Tensor, "batch glimpses 2"] | None = None,
    ) -> Reading:
        """Follows one path over each image, its own (random) one, or the given `places` (x, y) in [-1, 1]."""
        count = self.glimpses if places is None else places.shape[1]
        state = images.new_zeros(len(images), self.hidden)
        path = [images.new_empty(len(images), 2).uniform_(-1, 1) if places is None else places[:, 0]]
        densities, baselines = [], []
        for step in range(count):
            state = self.look(images, path[-1], state)
            baselines.append(self.baseline(state.detach())[:, 0])
            if step + 1 < count:
                place, density = self.choose(state)
                path.append(place if places is None else places[:, step + 1])
                densities.append(density)
        log_probs = F.log_softmax(self.classifier(state), dim=1)
        chosen = torch.stack(densities, dim=1) if densities else state.new_zeros(len(images), 0)
        return Reading(log_probs, torch.stack(path, dim=1), chosen, torch.stack(baselines, dim=1))

    @torch.no_grad()
    def predict(
        self, images: Float[Tensor, "batch channels height width"], copies: int = 10
    ) -> Float[Tensor, "batch classes"]:
        """Computes log-probabilities averaged over `copies` random paths, as the published figures were measured."""
        if copies < 1:
            raise ValueError(f"copies is a number of paths of at least 1, given {copies}")
        return torch.stack([self(images).log_probs for _ in range(copies)]).mean(dim=0)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Computes the paper's hybrid objective on `batch["images"]` and `batch["labels"]` (class numbers).

        Cross-entropy of the answer + squared error of the baseline + 0.01 REINFORCE of the path, the reward being 1 for
        a right answer.  With `batch["places"]` the path is given and only the cross-entropy is left.
        """
        labels, places = batch["labels"], batch.get("places")
        reading = self(batch["images"], places)
        answer = F.nll_loss(reading.log_probs, labels)
        right = (reading.log_probs.argmax(dim=1) == labels).float()
        if places is not None:
            return {"loss": answer, "answer": answer, "accuracy": right.mean()}
        reward = right[:, None].expand_as(reading.baselines)
        expected = F.mse_loss(reading.baselines, reward)
        choices = reading.log_densities.shape[1]
        policy = reinforce(reading.log_densities, reward[:, :choices], reading.baselines[:, :choices])
        total = answer + expected + POLICY_WEIGHT * policy
        return {"loss": total, "answer": answer, "baseline": expected, "policy": policy, "accuracy": right.mean()}


def ram_mnist() -> RAM:
    """The paper's model for MNIST, table 1a: six glimpses of 8 x 8 pixels at one scale."""
    return RAM(image_size=28, patch=8, scales=1, glimpses=6)


def ram_translated() -> RAM:
    """The paper's model for translated and cluttered MNIST of 60 pixels: glimpses of 12 x 12 at three scales."""
    return RAM(image_size=60, patch=12, scales=3, glimpses=6)
