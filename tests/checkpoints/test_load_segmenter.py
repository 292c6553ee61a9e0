"""Segmenter's published folders: checkpoint.pth with variant.yml, read without running anything that lies in them."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from sightline.checkpoints import load_checkpoint
from sightline.checkpoints.variant import read_variant
from sightline.systems.segmenter import LinearDecoder, MaskTransformer, Segmenter

DIM, PATCH, CLASSES = 64, 8, 7

VARIANT = """
algorithm: segmenter
amp: false
dataset_kwargs: {dataset: ade20k, image_size: 48, crop_size: 48, batch_size: 8, normalization: vit, split: train}
inference_kwargs: {im_size: 48, window_size: 48, window_stride: 32}
net_kwargs:
  backbone: vit_tiny_patch16_384
  d_model: 64
  decoder: {drop_path_rate: 0.0, dropout: 0.1, n_layers: 2, name: mask_transformer}
  distilled: false
  image_size: !!python/tuple [32, 48]
  n_cls: 7
  n_heads: 2
  n_layers: 2
  patch_size: 8
"""


def state(*, mask: bool = True, distilled: bool = False, layers: int = 2, classes: int = CLASSES) -> dict[str, Tensor]:
    """Random weights under the published names, an unused ImageNet head included; a picture has 4 x 6 patches."""
    torch.manual_seed(0)
    extra = 1 + distilled
    shapes: dict[str, tuple[int, ...]] = {
        "encoder.cls_token": (1, 1, DIM),
        "encoder.pos_embed": (1, extra + 24, DIM),
        "encoder.patch_embed.proj.weight": (DIM, 3, PATCH, PATCH),
        "encoder.patch_embed.proj.bias": (DIM,),
        "encoder.head.weight": (1000, DIM),
        "encoder.head.bias": (1000,),
    }
    if distilled:
        shapes |= {"encoder.dist_token": (1, 1, DIM), "encoder.head_dist.weight": (1000, DIM)}
        shapes["encoder.head_dist.bias"] = (1000,)
    blocks = [f"encoder.blocks.{i}" for i in range(layers)]
    norms = ["encoder.norm"]
    if mask:
        shapes |= {"decoder.cls_emb": (1, classes, DIM), "decoder.proj_dec.weight": (DIM, DIM)}
        shapes |= {
            "decoder.proj_dec.bias": (DIM,),
            "decoder.proj_patch": (DIM, DIM),
            "decoder.proj_classes": (DIM, DIM),
        }
        shapes |= {"decoder.mask_norm.weight": (classes,), "decoder.mask_norm.bias": (classes,)}
        blocks += [f"decoder.blocks.{i}" for i in range(2)]
        norms += ["decoder.decoder_norm"]
    else:
        shapes |= {"decoder.head.weight": (classes, DIM), "decoder.head.bias": (classes,)}
    for block in blocks:
        parts = {
            "attn.qkv": (3 * DIM, DIM),
            "attn.proj": (DIM, DIM),
            "mlp.fc1": (4 * DIM, DIM),
            "mlp.fc2": (DIM, 4 * DIM),
        }
        for name, shape in parts.items():
            shapes |= {f"{block}.{name}.weight": shape, f"{block}.{name}.bias": shape[:1]}
        norms += [f"{block}.norm1", f"{block}.norm2"]
    for norm in norms:
        shapes |= {f"{norm}.weight": (DIM,), f"{norm}.bias": (DIM,)}
    return {name: torch.randn(shape) * 0.1 for name, shape in shapes.items()}


def folder(tmp_path: Path, weights: dict[str, Tensor], variant: str = VARIANT) -> Path:
    training = {"model": weights, "optimizer": {"state": {}}, "n_iter_per_epoch": 5, "epoch": 3}
    torch.save(training, tmp_path / "checkpoint.pth")
    (tmp_path / "variant.yml").write_text(variant, "utf-8")
    return tmp_path


def naive(weights: dict[str, Tensor], images: Tensor, heads: int) -> Tensor:
    """The published forward pass, written out for pictures of the trained size: masks (batch, classes, h, w)."""

    def get(name: str) -> tuple[Tensor, Tensor]:
        return weights[f"{name}.weight"], weights[f"{name}.bias"]

    def norm(x: Tensor, name: str) -> Tensor:
        return torch.nn.functional.layer_norm(x, x.shape[-1:], *get(name), eps=1e-5)

    def block(x: Tensor, name: str, heads: int) -> Tensor:
        batch, count, width = x.shape
        mixed = torch.nn.functional.linear(norm(x, f"{name}.norm1"), *get(f"{name}.attn.qkv"))
        query, key, value = mixed.view(batch, count, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        shares = (query @ key.transpose(-2, -1) * (width // heads) ** -0.5).softmax(dim=-1)
        read = (shares @ value).transpose(1, 2).reshape(batch, count, width)
        x = x + torch.nn.functional.linear(read, *get(f"{name}.attn.proj"))
        wide = torch.nn.functional.gelu(torch.nn.functional.linear(norm(x, f"{name}.norm2"), *get(f"{name}.mlp.fc1")))
        return x + torch.nn.functional.linear(wide, *get(f"{name}.mlp.fc2"))

    patches = torch.nn.functional.conv2d(images, *get("encoder.patch_embed.proj"), stride=PATCH)
    size = patches.shape[2:]
    first = [weights[name] for name in ("encoder.cls_token", "encoder.dist_token") if name in weights]
    tokens = torch.cat([*(one.expand(len(images), -1, -1) for one in first), patches.flatten(2).transpose(1, 2)], dim=1)
    tokens = tokens + weights["encoder.pos_embed"]
    for number in range(2):
        tokens = block(tokens, f"encoder.blocks.{number}", heads)
    tokens = norm(tokens, "encoder.norm")[:, len(first) :]
    if "decoder.head.weight" in weights:
        scores = torch.nn.functional.linear(tokens, *get("decoder.head"))
        return scores.transpose(1, 2).unflatten(2, size)
    tokens = torch.nn.functional.linear(tokens, *get("decoder.proj_dec"))
    count = tokens.shape[1]
    tokens = torch.cat([tokens, weights["decoder.cls_emb"].expand(len(tokens), -1, -1)], dim=1)
    for number in range(2):
        tokens = block(tokens, f"decoder.blocks.{number}", DIM // 64)
    tokens = norm(tokens, "decoder.decoder_norm")
    seen, named = tokens[:, :count] @ weights["decoder.proj_patch"], tokens[:, count:] @ weights["decoder.proj_classes"]
    scores = (seen / seen.norm(dim=-1, keepdim=True)) @ (named / named.norm(dim=-1, keepdim=True)).transpose(1, 2)
    return norm(scores, "decoder.mask_norm").transpose(1, 2).unflatten(2, size)


@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize("distilled", [True, False])
def test_a_published_folder_loads_equal(tmp_path: Path, mask: bool, distilled: bool) -> None:
    weights = state(mask=mask, distilled=distilled)
    model = load_checkpoint(folder(tmp_path, weights))
    assert isinstance(model, Segmenter)
    assert not model.training
    assert (model.image_size, model.patch, model.classes) == ((32, 48), PATCH, CLASSES)
    assert model.encoder.layers[0].attention.heads == 2  # of variant.yml; the shapes do not show it
    assert model.encoder.registers == distilled
    assert isinstance(model.decoder, MaskTransformer if mask else LinearDecoder)
    images = torch.randn(2, 3, 32, 48)
    with torch.no_grad():
        torch.testing.assert_close(model.masks(images), naive(weights, images, 2), atol=1e-5, rtol=1e-4)
        assert model(torch.randn(1, 3, 37, 50)).shape == (1, CLASSES, 37, 50)


def test_the_golden_kit_loads_from_such_a_folder(shared: Path, tmp_path: Path) -> None:
    kit = shared / "golden" / "segmenter"
    weights = {n: v for n, v in load_file(kit / "weights.safetensors").items() if not n.startswith("linear_")}
    variant = "net_kwargs: {n_heads: 4, image_size: [32, 32]}\n"
    model = load_checkpoint(folder(tmp_path, weights, variant), decoder_heads=3)
    given, wanted = (load_file(kit / f"{name}.safetensors") for name in ("inputs", "outputs"))
    with torch.no_grad():
        for which in (0, 1):
            torch.testing.assert_close(model(given[f"images_{which}"]), wanted[f"logits_{which}"], atol=1e-4, rtol=0)


def test_what_shapes_do_not_show_may_be_told(tmp_path: Path) -> None:
    place = folder(tmp_path, state(), "net_kwargs: {image_size: [32, 48]}\n")
    assert load_checkpoint(place).encoder.layers[0].attention.heads == 1  # heads of 64 channels, as in all ViTs
    assert load_checkpoint(place, heads=4).encoder.layers[0].attention.heads == 4
    (tmp_path / "variant.yml").unlink()
    assert load_checkpoint(tmp_path, heads=4, image_size=(48, 32)).image_size == (48, 32)


def test_missing_and_left_over_weights_are_named(tmp_path: Path) -> None:
    for name, change in (("decoder.proj_patch", None), ("decoder.blocks.1.norm1.bias", None), ("decoder.odd", "add")):
        weights = state()
        if change is None:
            del weights[name]
        else:
            weights[name] = torch.zeros(2)
        with pytest.raises(ValueError, match=name.removeprefix("decoder.")):
            load_checkpoint(folder(tmp_path, weights))
    weights = state() | {"other.weight": torch.zeros(2)}
    with pytest.raises(ValueError, match=r"left over: other\.weight"):
        load_checkpoint(folder(tmp_path, weights))


class Harm:
    """Would make a folder if it were unpickled."""

    def __init__(self, place: str) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.place,)


def test_nothing_in_the_files_is_run(tmp_path: Path) -> None:
    harm = tmp_path / "harm"
    (tmp_path / "pickled").mkdir()
    torch.save({"model": state(), "extra": Harm(str(harm))}, tmp_path / "pickled" / "checkpoint.pth")
    (tmp_path / "pickled" / "variant.yml").write_text(VARIANT)
    with pytest.raises(ValueError, match=r"checkpoint\.pth"):
        load_checkpoint(tmp_path / "pickled")
    for tag in (f"!!python/object/apply:os.mkdir ['{harm}']", "!!python/name:os.system", "!!python/module:os"):
        bad = folder(tmp_path, state(), f"net_kwargs: {tag}\n")
        with pytest.raises(ValueError, match=r"variant\.yml is not readable as plain YAML .*download it again"):
            load_checkpoint(bad)
    assert not harm.exists()


@pytest.mark.parametrize("text", ["- a\n- b\n", "just words", "3"])
def test_a_variant_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "variant.yml").write_text(text)
    with pytest.raises(ValueError, match="must hold a mapping"):
        read_variant(tmp_path)


@pytest.mark.parametrize("text", ["a: [1, 2", "a: b: c", "\x00", "a: " + "[" * 5000])
def test_broken_yaml_is_told_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "variant.yml").write_text(text)
    with pytest.raises(ValueError, match="not readable as plain YAML") as caught:
        read_variant(tmp_path)
    assert "\n" not in str(caught.value)


def test_tuples_are_read_as_tuples(tmp_path: Path) -> None:
    (tmp_path / "variant.yml").write_text(VARIANT)
    assert read_variant(tmp_path)["net_kwargs"]["image_size"] == (32, 48)
    assert read_variant(tmp_path / "nowhere") == {}
