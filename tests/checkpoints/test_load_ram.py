"""Weights of kevinzakka/recurrent-visual-attention: both forms load, the shipped file reads MNIST as published."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sightline.checkpoints import load_checkpoint
from sightline.data.canvas import normalised, open_canvases
from sightline.systems.ram import RAM

SHIPPED = "ram_6_8x8_2_model_best.pth.tar"


def state(old_head: bool = False, reading: int = 64) -> dict[str, torch.Tensor]:
    """Random weights under the published names, a core of 20."""
    shapes = {
        "sensor.fc1": (12, reading),
        "sensor.fc2": (8, 2),
        "sensor.fc3": (20, 12),
        "sensor.fc4": (20, 8),
        "rnn.i2h": (20, 20),
        "rnn.h2h": (20, 20),
        "classifier.fc": (7, 20),
        "baseliner.fc": (1, 20),
        **({"locator.fc": (2, 20)} if old_head else {"locator.fc": (10, 20), "locator.fc_lt": (2, 10)}),
    }
    weights = {f"{name}.weight": torch.randn(shape) for name, shape in shapes.items()}
    return weights | {f"{name}.bias": torch.randn(shape[0]) for name, shape in shapes.items()}


@pytest.mark.parametrize("old_head", [False, True])
def test_sizes_are_read_from_the_shapes(tmp_path: Path, old_head: bool) -> None:
    torch.save({"epoch": 3, "model_state": state(old_head), "best_valid_acc": 98.0}, tmp_path / "best.pth.tar")
    model = load_checkpoint(tmp_path / "best.pth.tar", glimpses=4, std=0.05)
    assert isinstance(model, RAM)
    assert (model.patch, model.hidden, model.glimpses, model.std) == (8, 20, 4, 0.05)
    assert model.classifier.out_features == 7
    assert (model.locator.inner is None) is old_head
    given = state(old_head)
    save_file(given, tmp_path / "plain.safetensors")
    model = load_checkpoint(tmp_path / "plain.safetensors")
    assert torch.equal(model.state_dict()["core.from_state.weight"], given["rnn.h2h.weight"])
    assert torch.equal(
        model.state_dict()["locator.out.bias"], given["locator.fc.bias" if old_head else "locator.fc_lt.bias"]
    )


def test_several_scales_are_told_by_the_caller(tmp_path: Path) -> None:
    save_file(state(reading=72), tmp_path / "two.safetensors")
    with pytest.raises(ValueError, match="give the scales= and channels="):
        load_checkpoint(tmp_path / "two.safetensors")
    assert load_checkpoint(tmp_path / "two.safetensors", scales=2).patch == 6
    with pytest.raises(ValueError, match="patch=6, but patch=5"):
        load_checkpoint(tmp_path / "two.safetensors", scales=2, patch=5)


def test_missing_and_left_over_tensors_are_named(tmp_path: Path) -> None:
    weights = state()
    weights["extra"] = weights.pop("baseliner.fc.bias")
    save_file(weights, tmp_path / "odd.safetensors")
    with pytest.raises(ValueError, match=r"missing: baseliner\.fc\.bias; left over: extra"):
        load_checkpoint(tmp_path / "odd.safetensors")


def test_own_folder(tmp_path: Path) -> None:
    model = RAM(patch=4, scales=2, what=6, where=4, locator=0)
    model.save_pretrained(tmp_path)
    assert load_file(tmp_path / "model.safetensors").keys() == model.state_dict().keys()
    loaded = load_checkpoint(tmp_path)
    assert isinstance(loaded, RAM)
    assert (loaded.scales, loaded.locator.inner) == (2, None)


@pytest.mark.slow
def test_the_shipped_weights_reach_their_published_error(shared: Path) -> None:
    model = load_checkpoint(shared / "data" / "checkpoints" / SHIPPED)
    assert isinstance(model, RAM)
    data = open_canvases(f"mnist:{shared / 'data' / 'mnist'}", "test")
    torch.manual_seed(0)
    images = normalised(data.digits[:, None])
    answers = torch.cat([model.predict(some, 10).argmax(dim=1) for some in images.split(1000)])
    # 1.53 % by the published code with its own random numbers; 1.44, 1.55, 1.48 % here with seeds 0, 1, 2
    assert 0.014 <= (answers != data.labels).double().mean().item() <= 0.017
