"""The Vision Transformer: sizes of the paper, order of tokens, size changes, learning, saving."""

import inspect
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from sightline.systems import vit
from sightline.systems.vit import VisionTransformer


def small(**more: object) -> VisionTransformer:
    torch.manual_seed(0)
    arguments = {"image_size": 32, "patch": 8, "dim": 24, "depth": 2, "heads": 3, "classes": 5, **more}
    model = VisionTransformer(**arguments)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


@pytest.mark.parametrize(
    ("preset", "millions"),
    [
        # parameters of the published models with 1000 classes at 224 pixels
        (vit.vit_tiny_16, 5.717416),
        (vit.vit_small_16, 22.050664),
        (vit.vit_base_32, 88.224232),
        (vit.vit_base_16, 86.567656),
        (vit.vit_large_16, 304.326632),
        (vit.vit_huge_14, 632.045800),
    ],
)
def test_presets_have_the_published_sizes(preset: object, millions: float) -> None:
    with torch.device("meta"):
        model = preset()  # type: ignore[operator]
    assert sum(one.numel() for one in model.parameters()) == round(millions * 1e6)


def test_every_preset_builds_and_takes_overrides() -> None:
    presets = [one for name, one in vars(vit).items() if name.startswith("vit_")]
    assert len(presets) == 9
    for preset in presets:
        with torch.device("meta"):
            model = preset(classes=0, image_size=(112, 224), depth=1)
        assert len(model.layers) == 1
        assert preset.__name__.endswith(f"_{model.patches.patch}")
    assert len(inspect.signature(VisionTransformer).parameters) < 12


@settings(deadline=None, max_examples=20)
@given(st.integers(8, 50), st.integers(8, 50), st.integers(0, 3), st.sampled_from(["class", "tanh", "distilled"]))
def test_any_image_of_a_patch_or_more_runs(height: int, width: int, registers: int, head: str) -> None:
    registers = max(registers, 1) if head == "distilled" else registers
    model = small(registers=registers, head=head, image_size=(32, 24))
    images = torch.randn(2, 3, height, width)
    tokens = model.tokens(images)
    assert tokens.shape == (2, 1 + registers + (height // 8) * (width // 8), 24)
    assert model(images).shape == (2, 5)


def test_order_of_tokens_and_their_positions() -> None:
    model = small(registers=2)
    with torch.no_grad():
        embedded = model.embed(torch.zeros(1, 3, 32, 32))[0]
        place = model.positions.table[0]
        torch.testing.assert_close(embedded[0], model.class_token[0, 0] + place[0])
        torch.testing.assert_close(embedded[1:3], model.register_tokens[0])
        torch.testing.assert_close(embedded[3:], model.patches.project.bias + place[1:])


def test_heads_read_what_they_should() -> None:
    images = torch.randn(2, 3, 32, 32)
    bare = small(classes=0)
    assert torch.equal(bare(images), bare.tokens(images)[:, 0])
    model = small()
    torch.testing.assert_close(model(images), model.head(model.tokens(images)[:, 0]))
    model = small(head="tanh")
    inner = model.before_head[0](model.tokens(images)[:, 0]).tanh()
    torch.testing.assert_close(model(images), model.head(inner))
    model = small(head="distilled", registers=2)
    tokens = model.tokens(images)
    torch.testing.assert_close(model(images), (model.head(tokens[:, 0]) + model.distilled_head(tokens[:, 1])) / 2)


def test_images_of_a_batch_do_not_touch_each_other() -> None:
    model = small(registers=1)
    images = torch.randn(3, 3, 40, 24)
    together = model(images)
    alone = torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_fresh_weights_follow_the_paper() -> None:
    torch.manual_seed(0)
    model = VisionTransformer(image_size=64, patch=8, dim=96, depth=2, heads=4, classes=7, registers=1)
    assert torch.equal(model(torch.randn(1, 3, 64, 64)), torch.zeros(1, 7))
    assert model.class_token.abs().max() == 0
    assert model.positions.table.std().item() == pytest.approx(0.02, rel=0.1)
    bound = math.sqrt(6 / (96 + 96))
    query = model.layers[0].attention.query.weight
    assert bound * 0.99 < query.abs().max() <= bound
    assert model.layers[0].attention.query.bias.abs().max() == 0
    assert 0 < model.layers[1].feedforward.expand.bias.abs().max() < 1e-5
    cut = model.patches.project.weight
    assert cut.std().item() == pytest.approx((3 * 64) ** -0.5, rel=0.05)
    assert model.patches.project.bias.abs().max() == 0


def test_loss_is_cross_entropy_and_learns() -> None:
    model = small().train()
    batch = {"images": torch.randn(8, 3, 32, 32), "labels": torch.arange(8) % 5}
    first = model.loss(batch)
    torch.testing.assert_close(first["loss"], F.cross_entropy(model(batch["images"]), batch["labels"]))
    soft = {**batch, "labels": F.one_hot(batch["labels"], 5).float()}
    torch.testing.assert_close(model.loss(soft)["loss"], first["loss"])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        model.loss(batch)["loss"].backward()
        optimizer.step()
    last = model.loss(batch)
    assert last["loss"] < 0.05 * first["loss"]
    assert last["accuracy"] == 1


def test_the_distillation_token_learns_from_the_teacher() -> None:
    model = small(head="distilled", registers=1)
    images, labels, teacher = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3]), torch.tensor([4, 3, 2, 1])
    tokens = model.tokens(images)
    expected = F.cross_entropy(model.head(tokens[:, 0]), labels)
    expected = (expected + F.cross_entropy(model.distilled_head(tokens[:, 1]), teacher)) / 2
    found = model.loss({"images": images, "labels": labels, "teacher": teacher})["loss"]
    torch.testing.assert_close(found, expected)


def test_saved_models_come_back_equal(tmp_path: object) -> None:
    model = small(image_size=(24, 40), registers=1, head="distilled", positions="jax", eps=1e-5)
    model.save_pretrained(tmp_path)
    again = VisionTransformer.from_pretrained(tmp_path).eval()
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(model(images), again(images))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 4}, "holds no patch of 8"),
        ({"heads": 5}, "dim=24, heads=5"),
        ({"head": "mean"}, "given 'mean'"),
        ({"positions": "nearest"}, "given 'nearest'"),
        ({"head": "distilled"}, "registers=1"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**arguments)


def test_refusals_while_running() -> None:
    with pytest.raises(ValueError, match="build it with classes"):
        small(classes=0).loss({"images": torch.zeros(1, 3, 32, 32), "labels": torch.zeros(1).long()})
    with pytest.raises(ValueError, match="one patch"):
        small()(torch.zeros(1, 3, 7, 32))
