"""IoU, pixel accuracy and their control, against counting pixel by pixel."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.metrics.segmentation import CommonByPlace, Confusion

VOID = 255


def naive(pictures: list[tuple[torch.Tensor, torch.Tensor]], classes: int) -> tuple[list[float], float, list[float]]:
    """IoU of each class, pixel accuracy and recall of each class, by sets of pixels."""
    iou, recall, right, all_of_them = [], [], 0, 0
    for number in range(classes):
        both = either = true_ones = 0
        for said, true in pictures:
            for s, t in zip(said.flatten().tolist(), true.flatten().tolist(), strict=True):
                if t == VOID:
                    continue
                both += s == number and t == number
                either += s == number or t == number
                true_ones += t == number
        iou.append(both / either if either else math.nan)
        recall.append(both / true_ones if true_ones else math.nan)
    for said, true in pictures:
        for s, t in zip(said.flatten().tolist(), true.flatten().tolist(), strict=True):
            right += t != VOID and s == t
            all_of_them += t != VOID
    return iou, right / max(1, all_of_them), recall


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 6), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6), st.integers(0, 10**6))
def test_figures_are_those_of_counting(classes: int, count: int, height: int, width: int, seed: int) -> None:
    drawn = torch.Generator().manual_seed(seed)
    pictures, counted = [], Confusion(classes)
    for _ in range(count):
        said = torch.randint(0, classes, (height, width), generator=drawn)
        true = torch.randint(0, classes, (height, width), generator=drawn)
        true[torch.rand(height, width, generator=drawn) < 0.2] = VOID
        pictures.append((said, true))
        counted.update(said, true.to(torch.uint8))
    iou, accuracy, recall = naive(pictures, classes)
    assert counted.iou().tolist() == pytest.approx(iou, nan_ok=True)
    assert counted.class_accuracy().tolist() == pytest.approx(recall, nan_ok=True)
    assert counted.pixel_accuracy() == pytest.approx(accuracy)
    known = [value for value in iou if not math.isnan(value)]
    if known:
        assert counted.mean_iou() == pytest.approx(sum(known) / len(known))


def test_counts_are_pooled_over_pictures_not_averaged() -> None:
    counted = Confusion(2)
    counted.update(torch.tensor([0]), torch.tensor([0]))
    counted.update(torch.tensor([0] * 9), torch.tensor([1] * 9))
    assert counted.counts.tolist() == [[1, 0], [9, 0]]
    assert counted.iou().tolist() == [0.1, 0.0]


def test_absent_classes_are_left_out_of_the_mean() -> None:
    counted = Confusion(3)
    counted.update(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 1, 0, VOID]))
    figures = counted.figures(("sky", "road", "tram"))
    assert figures["iou"] == {"sky": 0.5, "road": 0.5, "tram": None}
    assert figures["miou"] == 0.5
    assert figures["pixel_accuracy"] == pytest.approx(2 / 3)
    assert figures["class_accuracy"] == 0.75


def test_void_pixels_may_be_said_to_be_anything() -> None:
    counted = Confusion(2)
    counted.update(torch.tensor([7, 0]), torch.tensor([VOID, 0]))
    assert counted.counts.tolist() == [[1, 0], [0, 0]]


@pytest.mark.parametrize(("said", "true", "named"), [([2], [0], "said"), ([0], [2], "true"), ([-1], [0], "said")])
def test_classes_that_do_not_exist_are_refused(said: list[int], true: list[int], named: str) -> None:
    with pytest.raises(ValueError, match=f"{named} classes go from 0 to 1"):
        Confusion(2).update(torch.tensor(said), torch.tensor(true))
    with pytest.raises(ValueError, match="two classes or more"):
        Confusion(1)


def test_the_control_says_what_is_most_common_at_each_place() -> None:
    common = CommonByPlace(3)
    truth = torch.full((36, 48), VOID)
    truth[:18], truth[18:, :24], truth[18:, 24:] = 0, 1, 2
    common.update(truth)
    assert torch.equal(common.answer((36, 48)), truth)
    small = common.answer((4, 4))
    assert small.tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 2, 2], [1, 1, 2, 2]]
    other = torch.full((36, 48), 2)
    common.update(other)
    common.update(other)
    assert torch.equal(common.answer((36, 48)), other)  # two against one
