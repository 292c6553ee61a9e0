from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.recipes import pictures
from sightline.recipes.batches import Batches, Order, Steps


class Grey:
    """Picture i is all i."""

    classes = ("even", "odd")

    def __init__(self, count: int) -> None:
        self.labels = np.arange(count) % 2

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> np.ndarray:
        return np.full((4, 4, 3), index, dtype=np.uint8)


def recipe_of(batch: int, steps: int) -> SimpleNamespace:
    return SimpleNamespace(side=4, settings=SimpleNamespace(batch=batch, steps=steps, seed=0, held=10))


def reader(data: Grey) -> partial:
    return partial(pictures.read_batch, data, recipe=recipe_of(6, 9))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 5))
def test_every_epoch_has_every_picture_once(length: int, batch: int, seed: int) -> None:
    order = Order(length, batch, seed)
    seen = np.concatenate([order[step] for step in range(-(-3 * length // batch))])[: 3 * length]
    for epoch in seen.reshape(3, length):
        assert sorted(epoch) == list(range(length))


def test_the_order_follows_from_seed_and_step_alone() -> None:
    first, second = Order(50, 8, 3), Order(50, 8, 3)
    late = second[40]  # asked for out of turn
    np.testing.assert_array_equal([first[step] for step in range(41)][40], late)
    assert not np.array_equal(Order(50, 50, 3)[0], Order(50, 50, 3)[1])
    assert not np.array_equal(Order(50, 50, 3)[0], Order(50, 50, 4)[0])


def test_a_later_start_gives_the_same_batches() -> None:
    read, order = reader(Grey(20)), Order(20, 6, 0)
    whole = list(Steps(read, order, 0, 9))
    rest = list(Steps(read, order, 5, 9))
    assert len(rest) == 4
    for early, late in zip(whole[5:], rest, strict=True):
        assert torch.equal(early["images"], late["images"])
        assert torch.equal(early["labels"], late["labels"])
    assert torch.equal(whole[0]["images"][:, 0, 0, 0] % 2, whole[0]["labels"].to(torch.uint8))


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_keep_the_order(workers: int) -> None:
    steps = Steps(reader(Grey(20)), Order(20, 6, 0), 2, 9)
    loader = torch.utils.data.DataLoader(steps, batch_size=None, num_workers=workers)
    for alone, shared in zip(steps, loader, strict=True):
        assert torch.equal(alone["images"], shared["images"])


def test_held_out_pictures_are_spread_evenly() -> None:
    batches = Batches(pictures, recipe_of(2, 3), Grey(8), Grey(100), told="grey:x")
    images = torch.cat([batch["images"] for batch in batches.val_dataloader()])
    assert images[:, 0, 0, 0].tolist() == [0, 11, 22, 33, 44, 55, 66, 77, 88, 99]
