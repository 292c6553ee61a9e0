"""The generated world with a class for each pixel: the drawn things' own masks, others in val, bad counts told."""

import numpy as np
import pytest

from sightline.data.segmented import open_segmented
from sightline.data.world_pixels import CLASSES, PALETTE, WorldPixels


def test_each_pixel_has_the_class_of_the_thing_that_fills_it():
    data = WorldPixels("100")
    views = data.scenes.views(range(70))
    shown = set()
    for index in (0, 5, 66):
        labels, covered = data.labels(index), np.zeros((64, 64), dtype=bool)
        assert labels.shape == (64, 64)
        assert labels.dtype == np.uint8
        for thing, mask in zip(data.scenes.scene(index).things, views.masks(index).numpy(), strict=True):
            name = f"{thing.material} {thing.shape}"
            assert {CLASSES[number] for number in labels[mask]} <= {name}
            covered |= mask
            shown.add(name)
        assert (labels[~covered] == 0).all()
        assert np.array_equal(data.image(index), views.images[index].permute(1, 2, 0).numpy())
    assert len(shown) > 3


def test_every_class_occurs_and_the_ground_is_most_of_it():
    data = WorldPixels("192")
    counts = sum(np.bincount(data.labels(index).ravel(), minlength=len(CLASSES)) for index in range(192))
    shares = counts / counts.sum()
    assert 0.6 < shares[0] < 0.95
    assert (shares[1:] > 0.005).all()
    assert len(PALETTE) == len(CLASSES) == len({tuple(colour) for colour in PALETTE.tolist()})


def test_what_is_given_cannot_be_written_to():
    for given in (WorldPixels("10").image(0), WorldPixels("10").labels(0)):
        with pytest.raises(ValueError, match="read-only"):
            given[:] = 0


def test_val_has_other_scenes():
    train, val = open_segmented("world:200"), open_segmented("world:200", "val")
    assert (len(train), len(val)) == (200, 20)
    assert train.classes == val.classes == CLASSES
    assert not np.array_equal(train.image(0), val.image(0))
    with pytest.raises(IndexError, match="scenes 0 to 19"):
        val.labels(20)


@pytest.mark.parametrize("count", ["9", "many", "-5", "1e3", "٣٠"])
def test_a_bad_count_is_told(count):
    with pytest.raises(ValueError, match="expected the number of scenes"):
        open_segmented(f"world:{count}")
