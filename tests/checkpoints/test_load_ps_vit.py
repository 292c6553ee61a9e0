"""PS-ViT's published layout: copies of the shared layer, the grid as a buffer, timm's training files with EMA."""

import argparse
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sightline.attention.progressive import grid_points
from sightline.checkpoints import load_checkpoint
from sightline.systems.ps_vit import PSViT

DIM, HIDDEN = 64, 96


def state(looks: int = 2, further: int = 1, points: int = 3, cells: int = 8) -> dict[str, Tensor]:
    """Random weights under the published names: stem widths 5, 4, 6, 3."""
    torch.manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {"stem.0.weight": (5, 3, 7, 7), "cls_token": (1, 1, DIM)}
    norms = {"stem.1": 5}
    for number, (channels, inner, out) in enumerate(((5, 4, 6), (6, 3, DIM)), start=4):
        kernels = {"conv1": (inner, channels, 1, 1), "conv2": (inner, inner, 3, 3), "conv3": (out, inner, 1, 1)}
        shapes |= {f"stem.{number}.{name}.weight": shape for name, shape in kernels.items()}
        shapes[f"stem.{number}.downsample.0.weight"] = (out, channels, 1, 1)
        norms |= {f"stem.{number}.bn{i}": width for i, width in ((1, inner), (2, inner), (3, out))}
        norms[f"stem.{number}.downsample.1"] = out
    layers = [f"ps_layers.{i}.transformer_layer" for i in range(looks)] + [f"trans_layers.{i}" for i in range(further)]
    linear = {"pos_layer": (DIM, 2), "head": (7, DIM)}
    linear |= {f"ps_layers.{i}.offset_layer": (2, DIM) for i in range(looks - 1)}
    for layer in layers:
        shapes[f"{layer}.attn.qkv.weight"] = (3 * DIM, DIM)
        linear |= {
            f"{layer}.attn.proj": (DIM, DIM),
            f"{layer}.mlp.fc1": (HIDDEN, DIM),
            f"{layer}.mlp.fc2": (DIM, HIDDEN),
        }
    for name in ("norm", *(f"{layer}.norm{i}" for layer in layers for i in (1, 2))):
        shapes |= {f"{name}.weight": (DIM,), f"{name}.bias": (DIM,)}
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    weights = {name: torch.randn(shape) * 0.1 for name, shape in shapes.items()}
    for name, width in norms.items():
        weights |= {f"{name}.{kind}": torch.rand(width) for kind in ("weight", "bias", "running_mean", "running_var")}
        weights[f"{name}.num_batches_tracked"] = torch.tensor(3)
    for i in range(looks):  # the shared layer, once more for each
        weights |= {
            f"ps_layers.{i}.position_layer.{kind}": weights[f"pos_layer.{kind}"].clone() for kind in ("weight", "bias")
        }
    return weights | {"point_coord": grid_points((points, points), (cells, cells))[None]}


def test_sizes_are_read_from_the_file(tmp_path: Path) -> None:
    save_file(state(), tmp_path / "plain.safetensors")
    model = load_checkpoint(tmp_path / "plain.safetensors")
    assert isinstance(model, PSViT)
    assert (model.image_size, model.grid, len(model.steps), len(model.layers)) == (32, (3, 3), 2, 1)
    assert model.steps[0].layer.attention.heads == 1
    given = state()
    third = given["trans_layers.0.attn.qkv.weight"].chunk(3)
    assert torch.equal(model.layers[0].attention.value.weight, third[2])
    assert torch.equal(model.stem.blocks[1].shortcut[0].weight, given["stem.5.downsample.0.weight"])
    assert torch.equal(model.steps[0].offset.bias, given["ps_layers.0.offset_layer.bias"])


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_training_file_gives_its_moving_average(tmp_path: Path, prefix: str) -> None:
    last, average = state(), {name: value + (0.5 if name == "head.bias" else 0) for name, value in state().items()}
    saved = {
        "epoch": 299,
        "arch": "ps_vit_b_14",
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-5}]},
        "args": argparse.Namespace(model="ps_vit_b_14", lr=5e-4),
        "version": 2,
        "state_dict": {prefix + name: value for name, value in last.items()},
        "state_dict_ema": {prefix + name: value for name, value in average.items()},
    }
    torch.save(saved, tmp_path / "model_best.pth.tar")
    model = load_checkpoint(tmp_path / "model_best.pth.tar", source="ps-vit")
    assert torch.equal(model.state_dict()["head.bias"], average["head.bias"])
    del saved["state_dict_ema"]
    torch.save(saved, tmp_path / "last.pth.tar")
    assert torch.equal(load_checkpoint(tmp_path / "last.pth.tar").state_dict()["head.bias"], last["head.bias"])


def test_damaged_files_are_named(tmp_path: Path) -> None:
    file = tmp_path / "odd.safetensors"
    weights = state()
    weights["ps_layers.1.position_layer.bias"] += 1
    save_file(weights, file)
    with pytest.raises(ValueError, match=r"ps_layers\.1\.position_layer\.bias differs from pos_layer\.bias"):
        load_checkpoint(file)
    weights = state()
    weights["point_coord"] = weights["point_coord"].flip(2)
    save_file({name: value.contiguous() for name, value in weights.items()}, file)
    with pytest.raises(ValueError, match="no even square grid of 3 x 3 points on 8 x 8 cells"):
        load_checkpoint(file)
    weights = state()
    del weights["trans_layers.0.mlp.fc1.bias"]
    weights["extra"] = torch.zeros(1)
    save_file(weights, file)
    with pytest.raises(ValueError, match="left over: extra"):
        load_checkpoint(file)
    del weights["extra"]
    save_file(weights, file)
    with pytest.raises(ValueError, match=r"layers\.0\.feedforward\.expand\.bias is missing"):
        load_checkpoint(file)
    save_file({**state(), "cls_token": torch.zeros(1, 1, DIM)}, file)
    with pytest.raises(ValueError, match="points=3, but points=4"):
        load_checkpoint(file, points=4)


def test_the_other_scale_of_products_is_a_keyword(tmp_path: Path) -> None:
    file = tmp_path / "plain.safetensors"
    save_file(state(), file)
    usual, other = load_checkpoint(file, heads=4), load_checkpoint(file, heads=4, scale="width")
    tokens = torch.randn(2, 5, DIM)
    query, key, value = (
        part.view(2, 5, 4, DIM // 4).transpose(1, 2)
        for part in (state()["trans_layers.0.attn.qkv.weight"] @ tokens.mT).mT.chunk(3, dim=2)
    )
    for model, divisor in ((usual, (DIM // 4) ** 0.5), (other, DIM**0.5)):
        mixed = ((query @ key.mT / divisor).softmax(dim=3) @ value).transpose(1, 2).reshape(2, 5, DIM)
        attention = model.layers[0].attention
        with torch.no_grad():
            torch.testing.assert_close(attention(tokens), attention.output(mixed))
    with pytest.raises(ValueError, match=r"scale is 'head' .* or 'width' .*, given 'sqrt'"):
        load_checkpoint(file, scale="sqrt")


def test_own_folder(tmp_path: Path) -> None:
    model = PSViT(image_size=32, points=3, iterations=2, dim=12, depth=3, heads=2, stem=(4, 4, 6, 4), classes=7)
    model.save_pretrained(tmp_path)
    loaded = load_checkpoint(tmp_path)
    assert isinstance(loaded, PSViT)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(loaded(images), model.eval()(images))
