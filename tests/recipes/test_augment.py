import pytest
import torch

from sightline.recipes import augment


def test_a_whole_window_is_the_picture_or_its_mirror() -> None:
    torch.manual_seed(0)
    images = torch.rand(16, 3, 8, 8)
    drawn = augment.crop_and_flip(images, 8, smallest=1.0)
    # the aspect still varies, so only square draws are whole; none may leave the range of the picture
    assert drawn.shape == images.shape
    assert drawn.min() >= 0
    assert drawn.max() <= 1


def test_crops_stay_inside_and_are_mirrored_half_the_time() -> None:
    torch.manual_seed(0)
    ramp = torch.linspace(0, 1, 32).expand(400, 3, 32, 32)  # grows to the right
    drawn = augment.crop_and_flip(ramp, 16)
    falling = drawn[:, 0, 0, 0] > drawn[:, 0, 0, -1]
    assert 0.4 < falling.float().mean() < 0.6
    span = (drawn[:, 0, 0, 0] - drawn[:, 0, 0, -1]).abs() / (15 / 16)
    assert span.min() > 0.4**0.5 * (3 / 4) ** 0.5 - 0.05  # narrowest: smallest area, narrowest aspect
    assert span.max() <= 1.05


def test_colours_without_strength_and_softness_without_share_change_nothing() -> None:
    images = torch.rand(4, 3, 8, 8)
    torch.testing.assert_close(augment.jitter_colours(images, 0.0), images)
    torch.testing.assert_close(augment.soften_some(images, 0.0, 0.0), images)


def test_colour_jitter_keeps_grey_pictures_grey() -> None:
    grey = torch.rand(6, 1, 8, 8).expand(-1, 3, -1, -1)
    jittered = augment.jitter_colours(grey, 0.4)
    torch.testing.assert_close(jittered.std(dim=1), torch.zeros(6, 8, 8), atol=1e-6, rtol=0)
    assert (jittered - grey).abs().max() > 0.01


def test_softening_takes_the_finest_detail_away() -> None:
    board = (torch.arange(8)[:, None] + torch.arange(8)) % 2  # a chessboard is all finest detail
    images = board.float().expand(3, 3, 8, 8)
    torch.testing.assert_close(augment.soften_some(images, 1.0, 0.0), torch.full_like(images, 0.5))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_labels_are_mixed_by_the_area_pasted(share: float) -> None:
    torch.manual_seed(1)
    count = 64
    shades = torch.arange(count) / count
    images = shades[:, None, None, None].expand(-1, 3, 10, 12)
    labels = torch.eye(count)
    mixed, shares = augment.mix_some(images, labels, share)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(count))
    # a picture's mean shade is the mean of the shades, weighted by its label
    torch.testing.assert_close(mixed.mean(dim=(1, 2, 3)), shares @ shades)
    assert ((shares > 0).sum(dim=1) == 2).float().mean() >= 0.8 * share
    assert share or torch.equal(mixed, images)
