from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from sightline.data.labelled import Union
from sightline.recipes.pictures import measure
from sightline.recipes.results import draw_curves
from sightline.recipes.watch import Record


class Numbered:
    """Picture i holds i in its pixels."""

    def __init__(self, classes: tuple[str, ...], labels: list[int]) -> None:
        self.classes, self.labels = classes, np.array(labels)

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> np.ndarray:
        return np.full((2, 2, 3), index, dtype=np.uint8)


def scored(rows: list[list[float]], classes: tuple[str, ...]) -> SimpleNamespace:
    def logits(images: torch.Tensor) -> torch.Tensor:
        return torch.tensor(rows)[images[:, 0, 0, 0].long()]

    cpu = torch.device("cpu")
    return SimpleNamespace(logits=logits, kept=torch.nn.Identity(), side=2, device=cpu, classes=classes)


def test_counts_by_part_and_among_its_own_classes() -> None:
    pictures = Union([Numbered(("cat", "cup"), [0, 0, 1, 1]), Numbered(("dog", "cat"), [1, 0])])
    classes = ("dog", "cup", "cat")  # as some weights have them
    # the truths are cat, cat, cup, cup; then cat, dog
    rows = [[0.0, 1.0, 2.0], [3.0, 1.0, 2.0], [0.0, 0.5, 1.0], [0.0, 3.0, 1.0]]
    figures = measure(scored(rows, classes), pictures)
    first, second = figures["parts"]
    assert first["top1"] == 0.5  # pictures 0 and 3
    assert first["own_top1"] == 0.75  # and picture 1, where only dog stands before cat
    assert first["top5"] == 1
    assert second == {"pictures": 2, "classes": 2, "top1": 1.0, "top5": 1.0, "own_top1": 1.0}
    assert figures["top1"] == pytest.approx(4 / 6)
    assert figures["chance"] == pytest.approx(1 / 3)


def test_a_network_that_says_the_same_of_everything_gains_nothing() -> None:
    pictures = Union([Numbered(("a", "b"), [0, 1, 0])])
    figures = measure(scored([[1.0, 1.0]] * 3, ("a", "b")), pictures)
    assert figures["top1"] == figures["parts"][0]["own_top1"] == 0


@pytest.mark.parametrize(("steps", "held"), [(1, []), (7, [(7, 0.0)]), (900, [(300, -4.5), (900, 30.0)])])
def test_curves_are_drawn_of_any_run(steps: int, held: list, tmp_path: Path) -> None:
    record = Record(tmp_path, SimpleNamespace(seed=0), "val_bleu_4")
    record.losses, record.held = list(np.linspace(3, 1, steps)), held
    draw_curves(record, tmp_path / "curves.png")
    assert record.told == "bleu 4"
    with Image.open(tmp_path / "curves.png") as drawn:
        pixels = np.asarray(drawn.convert("RGB")).astype(int)
    blue, orange = (np.abs(pixels - colour).sum(axis=2) < 60 for colour in ((31, 119, 180), (255, 127, 14)))
    assert blue.any() == (steps > 1)
    assert orange.any() == bool(held)
