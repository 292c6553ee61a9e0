"""What does a model call a photograph?"""

from typing import Any

import torch

from sightline.data.photographs import open_photograph
from sightline.tasks.look import answer, best_labels, evaluating, like_parameters
from sightline.tasks.vision_model import ModelError, Prepare, open_vision_model


def classify(
    image: Any, *, model: Any = None, top: int = 5, prepare: Prepare | None = None
) -> tuple[tuple[str, float], ...]:
    """The ``top`` likeliest classes of one photograph with their softmax probabilities, best first.

    ``image`` and ``model`` are as in ``look``.  Raises ``ModelError`` for a model without named classes,
    ``PhotographError`` for a picture that cannot be opened and ``ValueError`` for ``top`` below 1.
    """
    if top < 1:
        raise ValueError(f"top is a number of classes of at least 1, got {top}")
    opened = open_vision_model(model, prepare)
    pixels, _ = opened.prepare(open_photograph(image))
    with evaluating(opened.model), torch.no_grad():
        logits = answer(opened.model(like_parameters(pixels, opened.model)))
    labels = best_labels(logits, opened.names, top)
    if labels is None:
        raise ModelError(
            f"model {opened.name!r} gives no named classes"
            + (f" ({opened.note})" if opened.note else "")
            + "; give one that was trained to classify"
        )
    return labels
