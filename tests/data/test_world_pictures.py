"""The generated world as labelled pictures: named by the largest thing, others in val, bad counts told."""

import numpy as np
import pytest

from sightline.data.labelled import open_labelled
from sightline.data.scenes.splits import HELD_OUT
from sightline.data.world_pictures import CLASSES, WorldPictures


def test_the_label_names_the_thing_that_looks_largest():
    data = WorldPictures("40")
    views = data.scenes.views(range(40))
    sure = 0
    for index in range(40):
        things, pixels = data.scenes.scene(index).things, views.masks(index).sum((1, 2)).tolist()
        order = sorted(range(len(things)), key=pixels.__getitem__, reverse=True)
        if len(order) == 1 or pixels[order[0]] > 2 * pixels[order[1]]:  # neither hidden nor nearly as large
            largest = things[order[0]]
            assert CLASSES[data.labels[index]] == f"{largest.color} {largest.shape}"
            sure += 1
    assert sure > 12


def test_pictures_are_drawn_and_val_has_others():
    train, val = open_labelled("world:200"), open_labelled("world:200", "val")
    assert (len(train), len(val)) == (200, 20)
    assert train.classes == val.classes == CLASSES
    assert not any((color, shape) in HELD_OUT for color, shape in map(str.split, CLASSES))
    first, again, other = train.image(0), train.image(0), val.image(0)
    assert first.shape == (64, 64, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(train.image(70), WorldPictures("71").scenes.images([70])[0].permute(1, 2, 0).numpy())
    with pytest.raises(IndexError, match="scenes 0 to 19"):
        WorldPictures("200", "val").image(20)


def test_collections_of_it_join_and_repeat():
    joined = open_labelled("2*world:10+world:20")
    assert len(joined) == 40
    assert joined.classes == CLASSES


@pytest.mark.parametrize("count", ["", "9", "many", "-5", "1e3", "٣٠"])
def test_a_bad_count_is_told(count):
    with pytest.raises(ValueError, match="expected the number of scenes"):
        WorldPictures(count)


def test_another_split_is_told():
    with pytest.raises(ValueError, match="'train' or 'val'"):
        WorldPictures("10", "test")
