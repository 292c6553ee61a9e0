"""DINOv2's encoder: published sizes, order of tokens, the probe."""

import pytest
import torch
from torch.nn import functional as F

from sightline.systems import dinov2
from sightline.systems.dinov2 import DINOv2


def small(**more: object) -> DINOv2:
    torch.manual_seed(0)
    arguments = {"image_size": 28, "patch": 7, "dim": 24, "depth": 2, "heads": 3, **more}
    model = DINOv2(**arguments)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


@pytest.mark.parametrize(
    ("preset", "count"),
    [
        # the published models at 518 pixels, without the mask token
        (dinov2.dinov2_small_14, 22_056_576 - 384),
        (dinov2.dinov2_base_14, 86_580_480 - 768),
        (dinov2.dinov2_large_14, 304_368_640 - 1024),
        (dinov2.dinov2_giant_14, 1_136_480_768 - 1536),
    ],
)
def test_presets_have_the_published_sizes(preset: object, count: int) -> None:
    with torch.device("meta"):
        model = preset()  # type: ignore[operator]
    assert sum(one.numel() for one in model.parameters()) == count


@pytest.mark.parametrize("swiglu", [False, True])
def test_tokens_and_probe(swiglu: bool) -> None:
    model = small(registers=3, classes=4, swiglu=swiglu)
    images = torch.randn(2, 3, 21, 35)
    tokens = model.tokens(images)
    assert tokens.shape == (2, 1 + 3 + 3 * 5, 24)
    probe = torch.cat([tokens[:, 0], tokens[:, 4:].mean(dim=1)], dim=1)
    torch.testing.assert_close(model(images), model.head(probe))
    bare = small(swiglu=swiglu)
    assert torch.equal(bare(images), bare.tokens(images)[:, 0])


def test_loss_trains_the_probe() -> None:
    model = small(classes=3)
    batch = {"images": torch.randn(4, 3, 28, 28), "labels": torch.tensor([0, 1, 2, 0])}
    torch.testing.assert_close(model.loss(batch)["loss"], F.cross_entropy(model(batch["images"]), batch["labels"]))
    with pytest.raises(ValueError, match="build it with classes"):
        small().loss(batch)


def test_fresh_layers_start_near_identity() -> None:
    torch.manual_seed(0)
    model = DINOv2(image_size=28, patch=7, dim=24, depth=2, heads=3)
    tokens = torch.randn(1, 5, 24)
    moved = model.layers[1](model.layers[0](tokens)) - tokens
    assert 0 < moved.abs().max() < 1e-3
