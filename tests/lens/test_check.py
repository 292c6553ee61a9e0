"""The causal check on models whose reason for an answer is known exactly."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sightline.lens.check import Curves, deletion_insertion, mask_effect
from sightline.lens.judge import filled
from sightline.lens.regions import centre_map, first, heat_on, highest, moved, ordered

HEIGHT, WIDTH = 24, 36
BOX = (slice(2, 8), slice(24, 33))  # rows, columns: off centre


class Spot(nn.Module):
    """Says class 1 as far as the pixels in BOX are bright, and sees nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.eval()
        self.seen = 0

    def forward(self, pixels: Tensor) -> Tensor:
        self.seen += len(pixels)
        bright = pixels[:, :, *BOX].mean((1, 2, 3))
        return torch.stack([torch.zeros_like(bright), 4 * bright], dim=-1)


def picture(images: int = 1) -> Tensor:
    pixels = torch.zeros(images, 3, HEIGHT, WIDTH)
    pixels[:, :, *BOX] = 1
    return pixels


def marks(box: tuple[slice, slice], images: int = 1) -> Tensor:
    heat = torch.zeros(images, HEIGHT, WIDTH)
    heat[:, *box] = 1
    return heat


def test_the_right_region_matters() -> None:
    model = Spot()
    found = mask_effect(model, picture(), marks(BOX), mass=0.99, fill="zero")
    yes, no = torch.tensor(4.0).sigmoid(), torch.tensor(0.5)
    assert torch.allclose(found.whole, yes[None])
    assert torch.allclose(found.without, no[None])  # 99 % of the mass takes all 54 pixels
    assert torch.allclose(found.only, yes[None])
    assert torch.allclose(found.empty, no[None])
    assert "as much as a random one" in found.verdict or "hardly does" in found.verdict
    assert "centre" not in found.verdict
    assert found.random_without.shape == (1, 8)
    assert torch.equal(found.region[0].nonzero().amin(0), torch.tensor([2, 24]))
    assert 0.05 < float(found.area) < 54 / (HEIGHT * WIDTH) + 1e-6
    assert "probability of class 1" in found.summary()
    assert "\n" not in found.summary()


def test_the_wrong_region_is_called_no_better_than_chance() -> None:
    wrong = mask_effect(Spot(), picture(), marks((slice(15, 21), slice(3, 12))), mass=0.99, fill="zero")
    assert torch.allclose(wrong.without, wrong.whole)
    assert wrong.verdict == "removing what it looked at does not lower the score"
    half = mask_effect(Spot(), picture(), marks((slice(7, 13), slice(24, 33))), mass=0.99, fill="zero")
    assert half.drop > 0
    assert "no more than removing a random one" in half.verdict


def test_random_regions_are_as_large_and_are_really_removed() -> None:
    class Area(nn.Module):
        """Tells the number of bright pixels."""

        def forward(self, pixels: Tensor) -> Tensor:
            return pixels[:, 0].sum((1, 2))

    bright = torch.ones(2, 3, HEIGHT, WIDTH)
    model = Area().eval()
    heat = torch.stack([marks(BOX)[0], marks((slice(0, 10), slice(0, 10)))[0]])
    found = mask_effect(model, bright, heat, score=lambda answer: answer, area=0.1, fill="zero")
    count = float(round(0.1 * HEIGHT * WIDTH))
    assert torch.equal(found.drop, torch.full((2,), count))
    assert torch.equal(found.random_drop, torch.full((2, 8), count))
    assert torch.equal(found.random_only, torch.full((2, 8), count))
    assert torch.equal(found.centre_only, torch.full((2,), count))
    assert found.verdict.startswith("removing the region it looked at matters no more than removing a random one")


def test_centre_is_reported() -> None:
    class Centre(Spot):
        def forward(self, pixels: Tensor) -> Tensor:
            return super().forward(pixels.roll((-7, 12), (2, 3)))  # sees rows 9-14, columns 12-20

    middle = (slice(9, 15), slice(12, 21))
    pixels = torch.zeros(1, 3, HEIGHT, WIDTH)
    pixels[:, :, *middle] = 1
    found = mask_effect(Centre(), pixels, marks(middle), area=0.2, fill="zero")
    assert torch.allclose(found.centre_without, torch.tensor([0.5]))
    assert found.verdict.endswith("but no more than the centre of the image")


def test_a_small_effect_is_called_small() -> None:
    found = mask_effect(
        lambda p: 50 + p[:, 0, *BOX].mean((1, 2)), picture(), marks(BOX), lambda a: a, mass=0.99, fill="zero"
    )
    assert float(found.drop) == pytest.approx(1.0)
    assert found.verdict.endswith("yet the score falls by 2.0% only")


def test_curves_by_hand_and_areas() -> None:
    class Left(nn.Module):
        """Share of bright pixels among the left half's."""

        def forward(self, pixels: Tensor) -> Tensor:
            return pixels[:, 0, :, :4].mean((1, 2))

    pixels = torch.ones(1, 3, 4, 8)
    heat = torch.zeros(1, 4, 8)
    heat[..., :4] = 1
    curves = deletion_insertion(Left().eval(), pixels, heat, score=lambda answer: answer, steps=4, seeds=2, fill="zero")
    assert torch.equal(curves.fractions, torch.tensor([0, 0.25, 0.5, 0.75, 1]))
    assert torch.allclose(curves.deletion, torch.tensor([[1, 0.5, 0, 0, 0]]))
    assert torch.allclose(curves.insertion, torch.tensor([[0, 0.5, 1, 1, 1]]))
    assert torch.allclose(curves.auc("deletion"), torch.tensor([0.25]))  # 0.1875 + 0.0625: x = 0 counts
    assert torch.allclose(curves.auc("insertion"), torch.tensor([0.75]))
    assert curves.random_deletion.shape == (1, 2, 5)


def test_a_good_map_beats_chance_and_a_bad_one_does_not() -> None:
    model = Spot()
    good = deletion_insertion(model, picture(), marks(BOX), steps=12, seeds=6, fill="zero", batch=7)
    assert model.seen == 2 + 2 * 11 * 8
    assert good.verdict.startswith("step by step, deleting and inserting what it looked at first changes the answer")
    assert good.auc("deletion").item() < good.auc("random_deletion").mean()
    bad = deletion_insertion(model, picture(), 1 - marks(BOX), steps=12, seeds=6, fill="zero")
    assert bad.verdict == "step by step, the map orders the picture no better than the same map moved to random places"
    assert "random" in good.summary()


def test_batches_do_not_mix() -> None:
    pixels = torch.cat([picture(), 0.3 * picture(), -picture()])
    heat = torch.rand(3, 6, 9)
    together = deletion_insertion(Spot(), pixels, heat, steps=3, seeds=2, batch=5)
    for i in range(3):
        alone = deletion_insertion(Spot(), pixels[i : i + 1], heat[i : i + 1], steps=3, seeds=2)
        assert torch.allclose(alone.deletion, together.deletion[i : i + 1], atol=1e-6)
        assert torch.allclose(alone.insertion, together.insertion[i : i + 1], atol=1e-6)
    again = deletion_insertion(Spot(), pixels, heat, steps=3, seeds=2, batch=1)
    assert torch.allclose(again.random_deletion, together.random_deletion, atol=1e-6)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: x,
        lambda x: SimpleNamespace(logits=x),
        lambda x: {"logits": x},
        lambda x: (x, "more"),
    ],
)
def test_logits_are_found_in_every_form(wrap) -> None:
    found = mask_effect(lambda pixels: wrap(Spot()(pixels)), picture(), marks(BOX), fill="zero")
    assert found.measure == "probability of class 1"
    assert torch.allclose(found.whole, torch.tensor([4.0]).sigmoid())


def test_features_are_compared_with_the_whole_picture() -> None:
    def features(pixels: Tensor) -> SimpleNamespace:
        corner = pixels[:, :, *BOX].mean((2, 3))
        tokens = torch.stack([torch.cat([corner, torch.ones(len(pixels), 1)], dim=1)] * 2, dim=1)
        return SimpleNamespace(logits=None, last_hidden_state=tokens)

    found = mask_effect(features, picture(2), marks(BOX, 2), fill="zero", mass=0.999)
    assert found.measure == "likeness of its features"
    assert torch.allclose(found.whole, torch.ones(2))
    assert torch.allclose(found.without, torch.full((2,), 0.5))  # (0,0,0,1) against (1,1,1,1)
    same = mask_effect(lambda p: features(p).last_hidden_state, picture(2), marks(BOX, 2), fill="zero", mass=0.999)
    assert torch.allclose(same.without, found.without)
    forced = mask_effect(lambda p: features(p).last_hidden_state[:, 0], picture(), marks(BOX), "similarity")
    assert forced.measure == "likeness of its features"


def test_one_logit_is_a_yes_or_no() -> None:
    found = mask_effect(lambda p: Spot()(p)[:, 1:] - 1, picture(), marks(BOX), fill="zero", mass=0.999)
    assert torch.allclose(found.whole, torch.tensor([3.0]).sigmoid())
    assert torch.allclose(found.without, torch.tensor([-1.0]).sigmoid())


@settings(max_examples=25, deadline=None)
@given(height=st.integers(3, 40), width=st.integers(3, 40), images=st.integers(1, 2), grid=st.integers(2, 9))
def test_any_size_normalised(height: int, width: int, images: int, grid: int) -> None:
    pixels = torch.randn(images, 3, height, width)
    heat = torch.rand(images, grid, grid + 1)
    for fill in ("blur", "mean", "zero", torch.full((3, 1, 1), 0.5)):
        assert filled(pixels, fill).shape == pixels.shape
    model = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 4)).eval()
    found = mask_effect(model, pixels, heat, seeds=2)
    assert found.without.shape == (images,)
    assert bool(((found.area > 0) & (found.area < 1)).all())
    curves = deletion_insertion(model, pixels, heat, steps=2, seeds=2)
    assert torch.equal(curves.deletion[:, 0], curves.insertion[:, -1])
    assert torch.equal(curves.random_deletion[:, 0, -1], curves.insertion[:, 0])
    assert isinstance(curves.summary(), str)


def test_blur_keeps_a_flat_picture_and_flattens_detail() -> None:
    flat = torch.full((1, 3, 30, 50), 0.7)
    assert torch.allclose(filled(flat, "blur"), flat, atol=1e-5)
    checks = (torch.arange(30)[:, None] + torch.arange(50)[None]).remainder(2).float().expand(1, 3, 30, 50)
    assert filled(checks, "blur").std() < 0.02


def test_pixels_that_differ_by_rounding_alone_are_taken_in_reading_order() -> None:
    """A map enlarged on another processor differs in its last bits, and is cut at the same pixels."""
    heat = F.interpolate(torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(3)), (32, 32), mode="bilinear")
    heat, cuts = heat[0, 0], (100, 300, 352, 700)
    for seed in range(8):
        bits = torch.randint(-1, 2, heat.shape, generator=torch.Generator().manual_seed(seed))
        other = heat * (1 + 1.2e-7 * bits)
        assert all(torch.equal(first(other, cut), first(heat, cut)) for cut in cuts)


def test_the_order_of_pixels_holds_below_an_outlier_and_in_every_type() -> None:
    heat = torch.rand(64, 64, generator=torch.Generator().manual_seed(0))
    heat[5, 5] = 2e4
    chosen = first(heat, 400)
    assert chosen[5, 5]
    assert float(heat[chosen].min()) >= float(heat[~chosen].max()) * (1 - 2**-12)
    assert ordered(torch.tensor([-6e4, 0.0, 6e4, 1.0], dtype=torch.float16)).tolist() == [2, 3, 1, 0]
    assert ordered(torch.tensor([3, 7, 7, -2])).tolist() == [1, 2, 0, 3]
    assert ordered(torch.ones(2, 5)).tolist() == [[0, 1, 2, 3, 4]] * 2


def test_regions() -> None:
    heat = torch.tensor([[[0.4, 0.3], [0.2, 0.1]]])
    assert highest(heat, mass=0.6).tolist() == [[[True, True], [False, False]]]
    assert highest(heat, mass=0.39).tolist() == [[[True, False], [False, False]]]
    assert highest(heat, area=0.75).tolist() == [[[True, True], [True, False]]]
    middle = centre_map(5, 7)
    assert middle.argmax() == 2 * 7 + 3
    assert torch.allclose(middle, middle.flip(0).flip(1))
    copies = moved(heat, 40, seed=3)
    assert all(torch.equal(copy.flatten().sort().values, heat.flatten().sort().values) for copy in copies)
    assert len({tuple(copy.flatten().tolist()) for copy in copies}) > 3
    assert torch.equal(torch.stack(moved(heat, 5, seed=3)), torch.stack(copies[:5]))
    assert heat_on(heat[0], torch.zeros(1, 3, 6, 8)).shape == (1, 6, 8)


def test_refusals_say_what_to_do() -> None:
    model, pixels, heat = Spot(), picture(), marks(BOX)
    with pytest.raises(ValueError, match=r"model\.eval\(\)"):
        mask_effect(Spot().train(), pixels, heat)
    with pytest.raises(ValueError, match="same everywhere"):
        mask_effect(model, pixels, torch.ones(1, 3, 3))
    with pytest.raises(ValueError, match=r"must be \(1, h, w\)"):
        mask_effect(model, pixels, torch.rand(2, 3, 3))
    with pytest.raises(ValueError, match="NaN"):
        mask_effect(model, pixels, torch.full((1, 3, 3), torch.nan))
    with pytest.raises(ValueError, match="area="):
        mask_effect(model, pixels, heat - 0.5)
    with pytest.raises(ValueError, match="mass=1"):
        mask_effect(model, pixels, heat, mass=1.0)
    with pytest.raises(ValueError, match="area=0"):
        mask_effect(model, pixels, heat, area=0.0)
    with pytest.raises(ValueError, match="fill='red'"):
        mask_effect(model, pixels, heat, fill="red")
    with pytest.raises(ValueError, match="score='loss'"):
        mask_effect(model, pixels, heat, "loss")
    with pytest.raises(ValueError, match="one number for each"):
        mask_effect(model, pixels, heat, lambda answer: answer)
    with pytest.raises(ValueError, match="give score="):
        mask_effect(lambda p: SimpleNamespace(boxes=p), pixels, heat)
    with pytest.raises(ValueError, match="seeds=1"):
        deletion_insertion(model, pixels, heat, seeds=1)


def test_results_are_frozen() -> None:
    curves = deletion_insertion(Spot(), picture(), marks(BOX), steps=2, seeds=2)
    assert isinstance(curves, Curves)
    with pytest.raises(AttributeError):
        curves.measure = "other"
