"""Things on textured ground: masks that are true, grounds that say nothing, pictures that come again."""

import pytest
import torch

from sightline.data.cutouts import LONGEST, SHORTEST, Cutouts, ground


def test_a_picture_depends_on_seed_and_number_alone() -> None:
    made = Cutouts(count=20, side=64, seed=3)
    together, alone = made.pictures([4, 9]), made.pictures([9])
    assert torch.equal(together.images[1], alone.images[0])
    assert torch.equal(together.masks[1], alone.masks[0])
    assert not torch.equal(together.images[1], Cutouts(count=20, side=64, seed=4).pictures([9]).images[0])
    with pytest.raises(IndexError):
        made.pictures([20])


def test_the_mask_is_the_thing() -> None:
    """Outside the mask (and its edge) the picture is the ground alone; inside it is not."""
    made = Cutouts(count=12, side=96, seed=0)
    images, masks = made.pictures(range(12))
    assert images.dtype == torch.uint8
    edge = torch.nn.functional.max_pool2d(masks[:, None].float(), 5, 1, 2)[:, 0] > 0
    for number, (image, mask) in enumerate(zip(images, masks, strict=True)):
        draw = torch.Generator().manual_seed(number)
        torch.rand((), generator=draw)  # the thing's length
        bare = (ground(96, draw) * 255).round().to(torch.uint8)
        assert torch.equal(image[:, ~edge[number]], bare[:, ~edge[number]])
        assert (image[:, mask] != bare[:, mask]).float().mean() > 0.9
        rows, columns = (mask.any(dim).nonzero().flatten() for dim in (1, 0))
        longest = max(int(rows[-1] - rows[0]), int(columns[-1] - columns[0])) + 1
        assert SHORTEST * 96 - 3 <= longest <= LONGEST * 96 + 1


def test_places_are_even_and_grounds_differ() -> None:
    images, masks = Cutouts(count=200, side=32, seed=1).pictures(range(200))
    middle = torch.stack([mask.nonzero().float().mean(0) for mask in masks])
    assert (middle.mean(0) - 15.5).abs().max() < 1.5
    assert middle.std(0).min() > 4
    assert 0.05 < float(masks.float().mean()) < 0.25
    assert images.float().mean((2, 3)).std(0).min() > 20  # colours of the grounds


@pytest.mark.parametrize(("count", "side"), [(0, 64), (5, 16)])
def test_impossible_ones_are_refused(count: int, side: int) -> None:
    with pytest.raises(ValueError, match="expected one or more"):
        Cutouts(count, side)
