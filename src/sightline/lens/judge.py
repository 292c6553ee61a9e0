"""Asks a model about edited copies of pictures, many at a time, and turns each answer into one number."""

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Score = Callable[[Any], Tensor] | str | None


class Judge:
    """Scores of pictures of which some pixels are filled in.

    whole    (images,) scores of the pictures as they are;  measure: what the score is, in words.
    """

    def __init__(
        self,
        model: Callable[[Tensor], Any],
        pixels: Float[Tensor, "images channels height width"],
        score: Score,
        fill: str | Tensor,
        batch: int,
    ) -> None:
        if isinstance(model, nn.Module) and model.training:
            raise ValueError("The model is in training mode, where answers differ by chance: call model.eval() first.")
        self.model, self.pixels, self.batch = model, pixels, batch
        self.filled = filled(pixels, fill)
        output = model(pixels)
        self.measure, self._score = _scorer(output, score)
        self.whole = self._numbers(output, torch.arange(len(pixels)))

    def empty(self) -> Float[Tensor, " images"]:
        """Scores of the pictures with every pixel filled in."""
        none = torch.zeros(self.pixels.shape[-2:], dtype=torch.bool, device=self.pixels.device)
        return self((image, none) for image in range(len(self.pixels)))

    def __call__(self, edits: Iterable[tuple[int, Tensor]]) -> Float[Tensor, " edits"]:
        """Scores of edits (number of the picture, (height, width) mask of the pixels that stay)."""
        waiting = iter(edits)
        scores = []
        while chunk := list(islice(waiting, self.batch)):
            images = torch.tensor([image for image, _ in chunk])
            keep = torch.stack([mask for _, mask in chunk])[:, None]
            chosen = images.to(self.pixels.device)
            edited = torch.where(keep, self.pixels[chosen], self.filled[chosen])
            scores.append(self._numbers(self.model(edited), images))
        return torch.cat(scores)

    def _numbers(self, output: Any, images: Tensor) -> Tensor:
        scores = self._score(output, images).detach().float().cpu()
        if scores.shape != (len(images),):
            raise ValueError(f"score gave {tuple(scores.shape)} for {len(images)} pictures: give one number for each.")
        return scores


def filled(pixels: Float[Tensor, "images channels height width"], fill: str | Tensor) -> Tensor:
    """The pictures with nothing left to recognise: "blur", "mean" colour, "zero", or the tensor given."""
    if isinstance(fill, Tensor):
        return fill.to(pixels).expand_as(pixels)
    if fill == "zero":
        return torch.zeros_like(pixels)
    if fill == "mean":
        return pixels.mean((2, 3), keepdim=True).expand_as(pixels)
    if fill != "blur":
        raise ValueError(f'fill={fill!r} is not known: "blur", "mean", "zero" or a tensor like the pixels.')
    sigma = min(pixels.shape[-2:]) / 10
    radius = max(1, round(3 * sigma))
    bell = torch.exp(-0.5 * (torch.arange(-radius, radius + 1).to(pixels) / sigma) ** 2)
    kernel = (bell / bell.sum()).expand(pixels.shape[1], 1, -1)
    wide = F.pad(pixels, (radius, radius, radius, radius), mode="replicate")
    wide = F.conv2d(wide, kernel[:, :, None, :], groups=pixels.shape[1])
    return F.conv2d(wide, kernel[:, :, :, None], groups=pixels.shape[1])


def _scorer(output: Any, score: Score) -> tuple[str, Callable[[Any, Tensor], Tensor]]:
    """(what it measures, function of output and picture numbers), fixed by the answer to the whole pictures."""
    if callable(score):
        return "score", lambda answer, _: score(answer)
    if score not in (None, "class", "similarity"):
        raise ValueError(f'score={score!r} is not known: None, "class", "similarity" or a function of the output.')
    logits, features = _logits(output), _features(output)
    if logits is not None and score != "similarity":
        labels = logits.argmax(-1)
        if logits.shape[-1] == 1:
            sign = logits[:, 0].sign()
            return "probability of its answer", lambda answer, images: torch.sigmoid(
                _given(_logits(answer))[:, 0] * sign[images.to(sign.device)]
            )
        named = f"class {int(labels[0])}" if len(labels) == 1 else "its class"
        return (
            f"probability of {named}",
            lambda answer, images: (
                _given(_logits(answer)).float().softmax(-1).gather(1, labels[images.to(labels.device)][:, None])[:, 0]
            ),
        )
    if features is not None and score != "class":
        return "likeness of its features", lambda answer, images: F.cosine_similarity(
            _given(_features(answer)).float(), features[images.to(features.device)].float(), dim=-1
        )
    raise ValueError(
        f"No {score or 'class or similarity'} score can be read from {type(output).__name__}: give "
        f"score=, a function of the model's output that returns one number for each picture."
    )


def _part(output: Any, *names: str) -> Tensor | None:
    for name in names:
        found = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
        if isinstance(found, Tensor):
            return found
    return None


def _logits(output: Any) -> Tensor | None:
    found = output if isinstance(output, Tensor) else _part(output, "logits")
    if found is None and isinstance(output, tuple | list) and output and isinstance(output[0], Tensor):
        found = output[0]
    return found if found is not None and found.ndim == 2 else None


def _features(output: Any) -> Tensor | None:
    """One vector a picture: a pooled output, the first token, or the mean of a feature map."""
    found = output if isinstance(output, Tensor) else _part(output, "image_embeds", "pooler_output")
    if found is None:
        found = _part(output, "last_hidden_state")
    if found is None and isinstance(output, tuple | list) and output and isinstance(output[0], Tensor):
        found = output[0]
    if found is None:
        return None
    return {2: lambda: found, 3: lambda: found[:, 0], 4: lambda: found.mean((2, 3))}.get(found.ndim, lambda: None)()


def _given(found: Tensor | None) -> Tensor:
    if found is None:
        raise ValueError("The model's output changed its form between two calls.")
    return found
