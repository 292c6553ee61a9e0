"""Which questions an answerer answers right: chosen among the given answers, pointed at, or written word for word."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sightline.data.asked import Asked
from sightline.data.vocabulary import Vocabulary
from sightline.decoding import greedy
from sightline.tasks.answerer import as_seen

_LONGEST = 10


def ready(batch: dict[str, Tensor], device: torch.device | str, other: bool = False) -> dict[str, Tensor]:
    """Moves a batch and scales its pictures; `other` hands each question the picture of another sample.

    It comes from half a batch away: neighbours may be questions about one photograph.
    """
    moved = {name: tensor.to(device) for name, tensor in batch.items()}
    moved["pictures"] = as_seen(moved["pictures"])
    seen = {name: moved[name] for name in ("pictures", "things", "made") if name in moved}
    return moved | {
        name: tensor.roll(max(1, len(tensor) // 2), dims=0) if other else tensor for name, tensor in seen.items()
    }


def written(system: Any, batch: dict[str, Tensor], vocabulary: Vocabulary) -> list[list[str]]:
    """Writes the answer to every question of a batch, greedily, without unknown words."""
    step, state = system.decoder(batch["pictures"], batch["questions"])
    blocked = (system.pad, system.start, system.unknown)
    found = greedy(step, state, start=system.start, end=system.end, max_length=_LONGEST, blocked=blocked)
    said = [" ".join(vocabulary.decode(row)) for row in found.lists()]
    many = batch["questions"].shape[1]
    return [said[k : k + many] for k in range(0, len(said), many)]


def correct(system: Any, batch: dict[str, Tensor], vocabulary: Vocabulary) -> Tensor:
    """Tells of every question whether it is answered right (pictures, questions): chosen, or written word for word."""
    if "boxes" in batch:
        return system(batch["pictures"], batch["questions"], batch["boxes"])[0].argmax(dim=2) == batch["right"]
    if batch["choices"].shape[2] > 1:
        return system.cost(batch["pictures"], batch["questions"], batch["choices"])[0].argmin(dim=2) == batch["right"]
    # an answer with a word outside the vocabulary cannot be said and counts as wrong
    truth = [[" ".join(vocabulary.decode(row)) for row in rows] for rows in batch["answers"].tolist()]
    said = written(system, batch, vocabulary)
    return torch.tensor([[a == b for a, b in zip(*rows, strict=True)] for rows in zip(said, truth, strict=True)])


def batches(data: Asked, size: int = 64) -> Sequence[np.ndarray]:
    """Shares out all samples of a split."""
    return np.array_split(np.arange(len(data)), max(1, len(data) // size))


def by_sort(items: Sequence[Any], right: dict[int, bool]) -> dict[str, float]:
    """Computes the share of right answers for each sort of question that occurs a hundred times or more."""
    sorts: dict[str, list[bool]] = {}
    for number, told in right.items():
        sorts.setdefault(items[number].sort, []).append(told)
    return {sort: sum(told) / len(told) for sort, told in sorted(sorts.items()) if len(told) >= 100}


def marks(recipe: Any, data: Asked, other: bool = False) -> dict[int, bool]:
    """Tells of every question of a split whether it is answered right."""
    right: dict[int, bool] = {}
    data.vocabulary = recipe.vocabulary
    for indices in batches(data):
        batch = ready(data.batch(indices), recipe.device, other)
        told = correct(recipe.kept, batch, recipe.vocabulary)
        there = batch["items"] >= 0
        right |= dict(zip(batch["items"][there].tolist(), told.to(there.device)[there].tolist(), strict=True))
    return right


def words_right(recipe: Any, data: Asked) -> float:
    """Computes the share of questions whose written answer is right word for word."""
    hits = count = 0
    data.vocabulary = recipe.vocabulary
    for indices in batches(data):
        batch = ready(data.batch(indices), recipe.device)
        for said, numbers in zip(written(recipe.kept, batch, recipe.vocabulary), batch["items"].tolist(), strict=True):
            for text, number in zip(said, numbers, strict=True):
                if number >= 0:
                    item = data.items[number]
                    hits, count = hits + (text == item.choices[item.right]), count + 1
    return hits / count
