"""What does a model call a photograph?"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from sightline.data.photographs import open_photograph
from sightline.lens.given import evaluating
from sightline.lens.sheet import spoken
from sightline.tasks.look import Look, answer, best_labels, describe, like_parameters, look
from sightline.tasks.points import PointsLook
from sightline.tasks.vision_model import ModelError, Prepare, VisionModel, open_vision_model


@dataclass(frozen=True)
class Classification:
    """What one model calls one photograph: `labels` are (name, probability) pairs, best first.

    Iterating gives the pairs.  `attention` is the model's `Look` at the photograph, computed when asked for.
    """

    labels: tuple[tuple[str, float], ...]
    image: Image.Image
    model: VisionModel
    title: str = "photograph"

    @property
    def label(self) -> str:
        """The likeliest class."""
        return self.labels[0][0]

    @property
    def probability(self) -> float:
        """The softmax probability of the likeliest class."""
        return self.labels[0][1]

    @cached_property
    def attention(self) -> Look:
        """Where the model looked; ValueError for a model without attention."""
        seen = look(self.image, model=self.model)
        return replace(seen, labels=self.labels, title=self.title, overlay=self._drawn(seen))

    def _drawn(self, seen: Look) -> Image.Image:
        from sightline.lens import view

        names = f"{self.model.name} names the likeliest of its {len(self.model.names or ())} classes, whatever comes."
        title, caption = f"{self.title}: {self}", f"{names} {describe(seen.heat)} {self.model.note}".strip()
        if isinstance(seen, PointsLook) and seen.points is not None:
            return seen.points.picture(title=title, caption=caption)
        return view.overlay(seen.image, seen.heat, title=title, caption=caption)

    def show(self) -> None:
        """Show the photograph with the attention on it, the classes above."""
        self.attention.show()

    def save(self, path: str | Path) -> Path:
        """Write the photograph with the attention on it (.png, .jpg, .webp), or a page with controls (.html)."""
        return self.attention.save(path)

    def __iter__(self) -> Iterator[tuple[str, float]]:
        return iter(self.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, place: int) -> tuple[str, float]:
        return self.labels[place]

    def __str__(self) -> str:
        return ", ".join(f"{spoken(name)} {chance:.1%}" for name, chance in self.labels)

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><td>{escape(spoken(name))}</td><td>{chance:.1%}</td></tr>" for name, chance in self.labels)
        return f"<table>{rows}</table>{self.attention._repr_html_()}"


def classify(image: Any, *, model: Any = None, top: int = 5, prepare: Prepare | None = None) -> Classification:
    """The ``top`` likeliest classes of one photograph with their softmax probabilities, best first.

    ``image`` and ``model`` are as in ``look``.  A model knows nothing but the classes it was trained on and picks
    among them whatever the photograph shows; the bundled "vit" knows 50 (its card lists them) and often errs.
    Raises ``ModelError`` for a model without named classes, ``PhotographError`` for a picture that cannot be opened
    and ``ValueError`` for ``top`` below 1.
    """
    if top < 1:
        raise ValueError(f"top is a number of classes of at least 1, got {top}")
    opened = open_vision_model(model, prepare)
    photograph = open_photograph(image)
    pixels, _ = opened.prepare(photograph)
    with evaluating(opened.model), torch.no_grad():
        logits = answer(opened.model(like_parameters(pixels, opened.model)))
    labels = best_labels(logits, opened.names, top)
    if labels is None:
        raise ModelError(
            f"model {opened.name!r} gives no named classes"
            + (f" ({opened.note})" if opened.note else "")
            + "; give one that was trained to classify"
        )
    title = Path(image).name if isinstance(image, str | Path) else "photograph"
    return Classification(labels, photograph, opened, title)
