"""How well pixels are named: intersection over union by class, their mean, pixel accuracy.

IoU of a class = pixels truly and said so / pixels truly or said so, counted over a whole collection (Everingham et al.
2010, section 4.2), not picture by picture.  Void pixels (255) count nowhere.
"""

import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor

from sightline.systems.segmenter import VOID


class Confusion:
    """Counts, over pictures, how often each true class was given each name.

    `counts[t, s]` are pixels of true class t that were said to be s.  Raises ValueError for fewer than two classes.
    """

    counts: Int[Tensor, "classes classes"]

    def __init__(self, classes: int, device: str | torch.device = "cpu") -> None:
        if classes < 2:
            raise ValueError(f"expected two classes or more, given {classes}")
        self.classes = classes
        self.counts = torch.zeros(classes, classes, dtype=torch.int64, device=device)

    def update(self, said: Integer[Tensor, "*pixels"], true: Integer[Tensor, "*pixels"]) -> None:
        """Counts some pixels; ValueError for a class that does not exist."""
        labelled = true != VOID
        said, true = said[labelled].long(), true[labelled].long()
        for name, values in (("said", said), ("true", true)):
            if len(values) and not 0 <= int(values.min()) <= int(values.max()) < self.classes:
                raise ValueError(f"{name} classes go from 0 to {self.classes - 1}, given {int(values.max())}")
        together = torch.bincount(true * self.classes + said, minlength=self.classes**2)
        self.counts += together.view(self.classes, self.classes).to(self.counts.device)

    def iou(self) -> Float[Tensor, " classes"]:
        """Computes the intersection over union of each class, 0 to 1; NaN for one neither true nor said anywhere."""
        both = self.counts.diag().double()
        return both / (self.counts.sum(dim=0) + self.counts.sum(dim=1) - both)

    def mean_iou(self) -> float:
        """Computes the mean IoU of the classes that occur."""
        return self.iou().nanmean().item()

    def pixel_accuracy(self) -> float:
        """Computes the share of labelled pixels named rightly."""
        return (self.counts.diag().sum() / self.counts.sum().clamp_min(1)).item()

    def class_accuracy(self) -> Float[Tensor, " classes"]:
        """Computes the share of each class's pixels named rightly (recall); NaN for a class that does not occur."""
        return self.counts.diag() / self.counts.sum(dim=1).double()

    def figures(self, names: tuple[str, ...]) -> dict[str, object]:
        """Gives {"miou", "pixel_accuracy", "class_accuracy", "iou": {name: …}}, the IoU of absent classes as None."""
        each = [None if value != value else value for value in self.iou().tolist()]
        return {
            "miou": self.mean_iou(),
            "pixel_accuracy": self.pixel_accuracy(),
            "class_accuracy": self.class_accuracy().nanmean().item(),
            "iou": dict(zip(names, each, strict=True)),
        }


class CommonByPlace:
    """Answers with the class most often seen at each place, of 18 x 24 places laid over pictures of any size.

    What can be said of the pictures of a collection without looking at any: the control of a segmenter.
    """

    rows, columns = 18, 24

    def __init__(self, classes: int) -> None:
        self.counts = torch.zeros(classes, self.rows, self.columns, dtype=torch.int64)

    def update(self, true: Integer[Tensor, "height width"]) -> None:
        """Counts the classes of one picture, where they are not void."""
        labelled = true != VOID
        rows, columns = self._cells((true.shape[0], true.shape[1]))
        cells = (rows[:, None] * self.columns + columns)[labelled]
        places = true[labelled].long() * (self.rows * self.columns) + cells
        self.counts += torch.bincount(places, minlength=self.counts.numel()).view_as(self.counts)

    def answer(self, shape: tuple[int, int]) -> Int[Tensor, "height width"]:
        """Gives the answer for a picture of this (height, width)."""
        rows, columns = self._cells(shape)
        return self.counts.argmax(dim=0)[rows[:, None], columns]

    def _cells(self, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
        return torch.arange(shape[0]) * self.rows // shape[0], torch.arange(shape[1]) * self.columns // shape[1]
