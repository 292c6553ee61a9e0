"""The recipe of RAM and its controls: a tiny run learns, measures and leaves a picture."""

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sightline.recipes import ram, ram_control
from sightline.recipes.train import evaluate, train


def write_idx(path: Path, values: np.ndarray) -> None:
    head = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    path.write_bytes(gzip.compress(head + values.astype(np.uint8).tobytes(), compresslevel=1))


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in for MNIST: three easy signs (a bar, a slanted cross, a frame) in its files."""
    folder = tmp_path_factory.mktemp("mnist")
    rng = np.random.default_rng(0)
    for part, count in (("train", 600), ("t10k", 120)):
        labels = rng.integers(0, 3, count)
        pixels = np.zeros((count, 28, 28), np.uint8)
        for picture, label in zip(pixels, labels, strict=True):
            if label == 0:
                picture[4:24, 12:16] = 255
            elif label == 1:
                steps = np.arange(4, 24)
                for shift in (-1, 0, 1):
                    picture[steps, steps + shift], picture[steps, 27 - steps + shift] = 255, 255
            else:
                picture[4:24, 4:24], picture[7:21, 7:21] = 255, 0
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", pixels)
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", labels)
    return folder


def test_a_tiny_run_learns(digits: Path, tmp_path: Path) -> None:
    run = train("ram", f"mnist:{digits}", out=tmp_path / "run", tiny=True)
    card = json.loads((run / "weights" / "card.json").read_text("utf-8"))
    found = card["measured"]
    assert found["error"] < 0.1  # chance: 0.67
    assert found["error"] <= found["single_path_error"] <= found["random_path_error"] + 0.05
    assert (card["kind"], card["image_size"]) == ("mnist", 28)
    assert evaluate(run / "weights", f"mnist:{digits}") == found
    with Image.open(run / "samples.png") as picture:
        assert picture.width > 1000


def test_glimpses_go_to_the_sign_on_a_larger_canvas(digits: Path, tmp_path: Path) -> None:
    sizes = {"steps": 150, "what": 32, "where": 16, "patch": 8, "glimpses": 3}
    run = train("ram", f"translated48:{digits}", out=tmp_path / "run", tiny=True, **sizes)
    found = json.loads((run / "metrics.json").read_text("utf-8"))["measured"]
    assert found["error"] < 0.45
    # 28 of 48 pixels each way: an even place lies on the sign about a third of the time
    assert found["on_digit"]["random"] == pytest.approx((28 / 48) ** 2, abs=0.08)
    assert found["on_digit"]["own"] > found["on_digit"]["random"] + 0.1


@pytest.mark.parametrize("kind", ["full", "conv", "random"])
def test_controls_learn_by_the_same_recipe(digits: Path, tmp_path: Path, kind: str) -> None:
    run = train("ram_control", f"mnist:{digits}", out=tmp_path / "run", tiny=True, steps=80, kind=kind)
    found = json.loads((run / "metrics.json").read_text("utf-8"))["measured"]
    assert found["error"] < 0.2
    assert "on_digit" not in found
    assert evaluate(run / "weights", f"mnist:{digits}") == found


def test_the_same_step_sees_the_same_canvases(digits: Path) -> None:
    data = ram.open_data(f"cluttered60:{digits}", "train")
    recipe = ram.Recipe(ram.build(data, **ram.TINY_SYSTEM), ram.Settings(), data)
    batch = ram.read_batch(data, np.arange(8), recipe)
    losses = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        losses.append(recipe.training_step(batch, 0).item())
    assert losses[0] == losses[1] != losses[2]


def test_held_out_canvases_are_fixed(digits: Path) -> None:
    first, second = (ram.open_data(f"cluttered60:{digits}", "val") for _ in range(2))
    chosen = np.array([3, 77])
    images = ram.read_batch(first, chosen, None)["images"]
    assert torch.equal(images, ram.read_batch(second, chosen, None)["images"])
    assert torch.equal(images[1], ram.read_batch(first, np.array([77]), None)["images"][0])


def test_systems_are_sized_for_the_canvas(digits: Path) -> None:
    small, large = (ram.open_data(f"{kind}:{digits}", "val") for kind in ("mnist", "translated60"))
    assert (ram.build(small).patch, ram.build(small).scales) == (8, 1)
    assert (ram.build(large).patch, ram.build(large).scales, ram.build(large).image_size) == (12, 3, 60)
    assert ram_control.build(large, kind="random").net.ram.patch == 12
    with pytest.raises(ValueError, match="full, conv or random, given 'lstm'"):
        ram_control.build(large, kind="lstm")
