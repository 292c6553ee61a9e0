"""Class-token attention against known objects: the maps of eager attention, each measure by hand, controls."""

import pytest
import torch
from torch import Tensor, nn

from sightline.metrics.localisation import energy_pointing_game, pointing_game
from sightline.metrics.objects import attention_on_objects, class_token_maps
from sightline.systems.vit import VisionTransformer

SIZES = {"image_size": 32, "patch": 8, "dim": 24, "depth": 2, "heads": 3, "classes": 0, "positions": "dino"}


@pytest.fixture
def model() -> VisionTransformer:
    torch.manual_seed(0)
    made = VisionTransformer(**SIZES).eval()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    return made


def eager(model: VisionTransformer, pixels: Tensor, layer: int) -> Tensor:
    """softmax(q k / sqrt d) of the class token, written out."""
    tokens = model.embed(pixels)
    for block in list(model.layers)[:layer]:
        tokens = block(tokens)
    block = model.layers[layer]
    inside = block.attention_norm(tokens)
    query, key = (
        part(inside).unflatten(2, (3, 8)).transpose(1, 2) for part in (block.attention.query, block.attention.key)
    )
    row = (query[:, :, :1] @ key.transpose(2, 3) / 8**0.5).softmax(dim=-1)[:, :, 0, 1:]
    return row.unflatten(2, (pixels.shape[2] // 8, pixels.shape[3] // 8))


@pytest.mark.parametrize("size", [(32, 32), (24, 56)])
@pytest.mark.parametrize("layer", [0, 1])
def test_maps_are_the_class_rows_of_eager_attention(
    model: VisionTransformer, size: tuple[int, int], layer: int
) -> None:
    pixels = torch.randn(2, 3, *size)
    with torch.no_grad():
        torch.testing.assert_close(class_token_maps(model, pixels, layer=layer), eager(model, pixels, layer))


def naive_jaccard(maps: Tensor, masks: list[Tensor], keep: float) -> tuple[float, float]:
    """Loops over images, objects, heads, cells."""
    best_of, mean_of = [], []
    for of_image, objects in zip(maps, masks, strict=True):
        scores = []
        for one in objects:
            of_object = []
            for head in of_image:
                cells, held, chosen = sorted(head.flatten().tolist(), reverse=True), 0.0, 0
                while held < keep * sum(cells):
                    held, chosen = held + cells[chosen], chosen + 1
                small = head >= cells[chosen - 1]
                factor = one.shape[0] // head.shape[0]
                large = small.repeat_interleave(factor, 0).repeat_interleave(factor, 1)
                of_object.append(float((large & one).sum() / (large | one).sum()))
            scores.append(of_object)
        best_of.append(sum(max(s) for s in scores) / len(scores))
        mean_of.append(sum(sum(s) / len(s) for s in scores) / len(scores))
    return sum(best_of) / len(best_of), sum(mean_of) / len(mean_of)


def test_pictures_of_several_sizes_are_refused_in_words(model: VisionTransformer) -> None:
    pixels = torch.randn(2, 3, 32, 32)
    masks = [torch.ones(1, side, 64, dtype=torch.bool) for side in (64, 48)]
    with pytest.raises(ValueError, match=r"masks of 48 x 64 and 64 x 64: expected one size in all pictures; resize"):
        attention_on_objects(model, [(pixels, masks)])
    with pytest.raises(ValueError, match=r"maps of 3 x 7 and 4 x 4: expected one size"):
        attention_on_objects(model, [(pixels[:1], masks[:1]), (torch.randn(1, 3, 24, 56), masks[:1])])


def test_all_measures_together(model: VisionTransformer) -> None:
    draw = torch.Generator().manual_seed(1)
    pixels = torch.randn(5, 3, 32, 32, generator=draw)
    masks = [torch.rand(1 + number % 3, 64, 64, generator=draw) < 0.2 for number in range(5)]
    scores = attention_on_objects(model, [(pixels[:2], masks[:2]), (pixels[2:], masks[2:])])
    maps = class_token_maps(model, pixels)
    best, mean = naive_jaccard(maps, masks, 0.6)
    assert scores.jaccard.value == pytest.approx(best, abs=1e-5)
    assert scores.jaccard.mean_head == pytest.approx(mean, abs=1e-5)
    assert scores.moved.value == pytest.approx(naive_jaccard(maps, masks[-1:] + masks[:-1], 0.6)[0], abs=1e-5)
    whole = torch.stack([one.any(0) for one in masks])
    assert torch.equal(scores.energy.each, energy_pointing_game(maps.mean(1), whole).each)
    assert torch.equal(scores.pointing.each, pointing_game(maps.mean(1), whole, tolerance=64 / 60).each)
    told = scores.figures()
    assert told["images"] == 5
    assert set(told) == {"images", "jaccard_mean_head", "jaccard_moved"} | {
        name + end for name in ("jaccard", "pointing", "energy") for end in ("", "_area", "_centre")
    }


class Finder(nn.Module):
    """A class token whose one head reads only the bright patches, as a model that finds the object would."""

    def __init__(self) -> None:
        super().__init__()
        self.class_token = nn.Parameter(torch.zeros(1, 1, 1))
        self.patches = nn.Conv2d(3, 1, 8, stride=8, bias=False)
        nn.init.constant_(self.patches.weight, 1.0)

    def forward(self, pixels: Tensor) -> Tensor:
        keys = self.patches(pixels).flatten(2).transpose(1, 2)
        keys = torch.cat([self.class_token.expand(len(pixels), -1, -1) - 1e3, keys], dim=1)[:, None]
        return nn.functional.scaled_dot_product_attention(torch.ones_like(keys), keys, keys)[:, 0, 0]


def test_a_model_that_finds_the_object_scores_one_and_the_moved_maps_do_not() -> None:
    masks = torch.zeros(4, 1, 32, 32, dtype=torch.bool)
    for number in range(4):
        row, column = divmod(number, 2)
        masks[number, 0, 16 * row : 16 * row + 8, 16 * column : 16 * column + 8] = True
    pixels = masks.float().expand(-1, 3, -1, -1)
    scores = attention_on_objects(Finder(), [(pixels, list(masks))])
    assert scores.jaccard.value == 1
    assert scores.pointing.value == 1
    assert scores.energy.value > 0.6  # enlarging blurs the map over the object's edge
    assert scores.moved.value == 0
    assert scores.jaccard.area == pytest.approx(1 / 16)


def test_what_cannot_be_measured(model: VisionTransformer) -> None:
    pixels, mask = torch.randn(1, 3, 32, 32), torch.ones(1, 32, 32, dtype=torch.bool)
    with pytest.raises(ValueError, match="at least two"):
        attention_on_objects(model, [(pixels, [mask])])
    with pytest.raises(ValueError, match="no object"):
        attention_on_objects(model, [(pixels.expand(2, -1, -1, -1), [mask, mask & False])])
