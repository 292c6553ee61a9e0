"""Equality with figures that the published implementations computed (golden kits)."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from sightline.checkpoints import load_checkpoint


class Kit:
    """A golden kit: inputs, stored outputs and how far each may be off."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.inputs = load_file(folder / "inputs.safetensors")
        self.outputs = load_file(folder / "outputs.safetensors")
        self.config = json.loads((folder / "config.json").read_text())

    def check(self, name: str, mine: Tensor) -> None:
        stored = self.outputs[name]
        assert mine.shape == stored.shape
        assert (mine - stored).abs().max() <= self.config["outputs"][name]["atol"], name


def class_row(layer: torch.nn.Module, tokens: Tensor) -> Tensor:
    """The class token's softmax row, (batch, heads, keys), by the formula."""
    attention, normed = layer.attention, layer.attention_norm(tokens)
    query, key = (
        part(normed).unflatten(2, (attention.heads, -1)).transpose(1, 2) for part in (attention.query, attention.key)
    )
    return (query[:, :, :1] @ key.transpose(2, 3) / query.shape[-1] ** 0.5).softmax(dim=-1)[:, :, 0]


@pytest.mark.parametrize(
    ("file", "source", "told"),
    [
        ("weights.safetensors", None, {"heads": 4}),
        ("weights.safetensors", "timm-vit", {"heads": 4, "image_size": (32, 32)}),
        ("weights_jax_layout.npz", None, {}),
        ("weights_jax_layout.npz", "jax-vit", {"heads": 4}),
    ],
)
def test_vit(shared: Path, file: str, source: str | None, told: dict[str, object]) -> None:
    kit = Kit(shared / "golden" / "vit")
    model = load_checkpoint(kit.folder / file, source, **told)
    with torch.no_grad():
        images = kit.inputs["images"]
        kit.check("logits", model(images))
        kit.check("tokens", model.tokens(images))
        tokens = model.embed(images)
        for i, layer in enumerate(model.layers):
            kit.check(f"cls_attention_{i}", class_row(layer, tokens))
            tokens = layer(tokens)
            kit.check(f"block_{i}", tokens)


def test_the_two_layouts_of_the_vit_kit_are_one_model(shared: Path) -> None:
    folder = shared / "golden" / "vit"
    torch_layout = load_checkpoint(folder / "weights.safetensors", heads=4).state_dict()
    jax_layout = load_checkpoint(folder / "weights_jax_layout.npz").state_dict()
    assert torch_layout.keys() == jax_layout.keys()
    assert all(torch.equal(value, jax_layout[name]) for name, value in torch_layout.items())


def test_dino(shared: Path) -> None:
    kit = Kit(shared / "golden" / "dino")
    model = load_checkpoint(kit.folder / "weights.safetensors", heads=4)
    crops, rect = kit.inputs["local_crops"], kit.inputs["rect_image"]
    with torch.no_grad():
        kit.check("features_global", model(kit.inputs["global_crops"][0]))
        kit.check("features_local", model(crops[0]))
        kit.check("features_rect", model(rect))
        kit.check("pos_local", model.positions(*crops.shape[-2:]))
        kit.check("pos_rect", model.positions(*rect.shape[-2:]))
        tokens, outputs = model.embed(crops[0]), []
        for layer in model.layers:
            tokens = layer(tokens)
            outputs.append(model.norm(tokens))
        kit.check("last2_local", torch.stack(outputs[-2:]))
        tokens = model.embed(rect)
        for layer in model.layers[:-1]:
            tokens = layer(tokens)
        kit.check("last_attention_rect", class_row(model.layers[-1], tokens))


def test_a_plain_bicubic_resize_would_not_pass_as_dino(shared: Path) -> None:
    kit = Kit(shared / "golden" / "dino")
    model = load_checkpoint(kit.folder / "weights.safetensors", heads=4, positions="transformers")
    far = (model.positions(64, 40) - kit.outputs["pos_rect"]).abs().max()
    assert far > 100 * kit.config["outputs"]["pos_rect"]["atol"]
    table = model.positions.table[:, 1:].unflatten(1, (14, 14)).permute(0, 3, 1, 2)
    plain = F.interpolate(table, size=(8, 5), mode="bicubic").flatten(2).transpose(1, 2)
    assert torch.equal(model.positions(64, 40)[:, 1:], plain)


@pytest.mark.parametrize("wrapped", [False, True])
def test_dino_as_its_authors_save_it(shared: Path, tmp_path: Path, wrapped: bool) -> None:
    import argparse

    kit = Kit(shared / "golden" / "dino")
    state = load_file(kit.folder / "weights.safetensors")
    backbone = {name.removeprefix("backbone."): one for name, one in state.items() if name.startswith("backbone.")}
    student = {f"module.{name}": torch.zeros_like(one) for name, one in state.items()}
    full = {"student": student, "teacher": state, "epoch": 3, "args": argparse.Namespace(arch="vit_small")}
    torch.save(full if wrapped else backbone, tmp_path / "dino.pth")
    model = load_checkpoint(tmp_path / "dino.pth", heads=4)
    with torch.no_grad():
        kit.check("features_rect", model(kit.inputs["rect_image"]))
