"""Equality with transformers: random models saved to a folder and loaded back here."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

import sightline
from sightline.systems.dinov2 import DINOv2
from sightline.systems.vit import VisionTransformer

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "image_size": 32,
    "patch_size": 8,
    "num_labels": 5,
}
ATOL = 1e-5


def random_model(kind: str, **more: Any) -> nn.Module:
    """A transformers model whose every parameter, positions included, is random."""
    stem = next(name for name in ("ViT", "DeiT", "Dinov2WithRegisters", "Dinov2") if kind.startswith(name))
    arguments = {**SIZES, **more}
    model = getattr(transformers, kind)(getattr(transformers, f"{stem}Config")(**arguments))
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


def both(kind: str, tmp_path: Path, size: tuple[int, int], **more: Any) -> tuple[nn.Module, nn.Module, torch.Tensor]:
    theirs = random_model(kind, **more)
    theirs.save_pretrained(tmp_path)
    return theirs, sightline.load_checkpoint(tmp_path), torch.randn(2, 3, *size)


IMAGES = [(32, 32), (48, 48), (24, 56), (80, 16), (37, 43)]


@pytest.mark.parametrize("size", IMAGES)
@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("ViTForImageClassification", {}),
        ("ViTForImageClassification", {"qkv_bias": False, "layer_norm_eps": 1e-3}),
        ("DeiTForImageClassification", {}),
        ("DeiTForImageClassificationWithTeacher", {}),
    ],
)
@torch.no_grad()
def test_classifiers(tmp_path: Path, kind: str, more: dict[str, Any], size: tuple[int, int]) -> None:
    theirs, mine, images = both(kind, tmp_path, size, **more)
    assert isinstance(mine, VisionTransformer)
    expected = theirs(images, interpolate_pos_encoding=True)
    torch.testing.assert_close(mine(images), expected.logits, atol=ATOL, rtol=0)
    body = getattr(theirs, theirs.base_model_prefix)
    tokens = body(images, interpolate_pos_encoding=True).last_hidden_state
    torch.testing.assert_close(mine.tokens(images), tokens, atol=ATOL, rtol=0)


@pytest.mark.parametrize("kind", ["ViTModel", "DeiTModel"])
@torch.no_grad()
def test_bare_models_give_the_pooled_token(tmp_path: Path, kind: str) -> None:
    theirs, mine, images = both(kind, tmp_path, (40, 24))
    expected = theirs(images, interpolate_pos_encoding=True)
    torch.testing.assert_close(mine(images), expected.pooler_output, atol=ATOL, rtol=0)
    torch.testing.assert_close(mine.tokens(images), expected.last_hidden_state, atol=ATOL, rtol=0)


@pytest.mark.parametrize("size", IMAGES)
@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("Dinov2ForImageClassification", {}),
        ("Dinov2ForImageClassification", {"use_swiglu_ffn": True, "qkv_bias": False}),
        ("Dinov2WithRegistersForImageClassification", {"num_register_tokens": 3}),
        ("Dinov2WithRegistersForImageClassification", {"use_swiglu_ffn": True}),
    ],
)
@torch.no_grad()
def test_dinov2(tmp_path: Path, kind: str, more: dict[str, Any], size: tuple[int, int]) -> None:
    theirs, mine, images = both(kind, tmp_path, size, **more)
    assert isinstance(mine, DINOv2)
    torch.testing.assert_close(mine(images), theirs(images).logits, atol=ATOL, rtol=0)
    tokens = getattr(theirs, theirs.base_model_prefix)(images).last_hidden_state
    torch.testing.assert_close(mine.tokens(images), tokens, atol=ATOL, rtol=0)


@pytest.mark.parametrize("kind", ["Dinov2Model", "Dinov2WithRegistersModel"])
@torch.no_grad()
def test_bare_dinov2_gives_the_class_token(tmp_path: Path, kind: str) -> None:
    theirs, mine, images = both(kind, tmp_path, (24, 40))
    torch.testing.assert_close(mine(images), theirs(images).pooler_output, atol=ATOL, rtol=0)


@torch.no_grad()
def test_positions_trained_on_images_that_are_not_square(tmp_path: Path) -> None:
    theirs, mine, images = both("ViTForImageClassification", tmp_path, (48, 24), image_size=[48, 24])
    torch.testing.assert_close(mine(images), theirs(images).logits, atol=ATOL, rtol=0)
    assert mine.positions.grid == (6, 3)


@pytest.mark.parametrize(
    "kind",
    ["ViTForImageClassification", "DeiTForImageClassificationWithTeacher", "Dinov2ForImageClassification"],
)
@pytest.mark.parametrize("swiglu", [False, True])
@torch.no_grad()
def test_a_saved_state_dict_has_other_names_and_loads_the_same(tmp_path: Path, kind: str, swiglu: bool) -> None:
    theirs = random_model(kind, **({"use_swiglu_ffn": swiglu} if "Dino" in kind else {}))
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    mine = sightline.load_checkpoint(tmp_path / "weights.pth", heads=4, eps=theirs.config.layer_norm_eps)
    images = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(mine(images), theirs(images).logits, atol=ATOL, rtol=0)


@torch.no_grad()
def test_shards_and_half_precision(tmp_path: Path) -> None:
    theirs = random_model("ViTForImageClassification").half()
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    mine = sightline.load_checkpoint(tmp_path)
    assert {one.dtype for one in mine.parameters()} == {torch.float32}
    images = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(mine(images), theirs.float()(images).logits, atol=ATOL, rtol=0)


def test_what_would_be_computed_otherwise_is_refused(tmp_path: Path) -> None:
    random_model("ViTForImageClassification", hidden_act="gelu_new").save_pretrained(tmp_path / "act")
    with pytest.raises(ValueError, match="hidden_act='gelu_new'"):
        sightline.load_checkpoint(tmp_path / "act")
    random_model("ViTForMaskedImageModeling", encoder_stride=8).save_pretrained(tmp_path / "decoder")
    with pytest.raises(ValueError, match=r"left over: decoder\.0\.bias"):
        sightline.load_checkpoint(tmp_path / "decoder")
    random_model("ViTForImageClassification", num_channels=1).save_pretrained(tmp_path / "grey")
    with pytest.raises(ValueError, match="RGB"):
        sightline.load_checkpoint(tmp_path / "grey")
