"""Two processes over gloo do what one does with the same whole batch: twice the batch that each of the two reads."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from sightline.recipes import augment, pictures, results
from sightline.recipes.batches import Order, Share
from sightline.recipes.machines import check_machines
from sightline.recipes.plan import TrainingError
from sightline.recipes.train import train

# Without what is drawn at random, which differs between processes (recipes/machines.py says how); started through a
# script, since Lightning starts the second process by the same command line.
SCRIPT = """
from torch.nn import functional as F
from sightline.cli.main import main
from sightline.recipes import augment, pictures, results

pictures.draw_samples = results.draw_curves = lambda *given: None  # at which nobody looks here
augment.crop_and_flip = lambda images, side: F.interpolate(images, side)
augment.jitter_colours = augment.soften_some = lambda images: images
main()
"""
# a small rate: Adam divides the rounding errors of a vanishing gradient by themselves
SHORT = {"steps": 8, "save_every": 4, "mix": 0, "rate": 1e-4}


def shell(folder: Path, *words: str) -> subprocess.CompletedProcess:
    script = folder / "shell.py"
    script.write_text(SCRIPT)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(script), "train", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)


def left(run: Path) -> tuple[dict, dict]:
    return json.loads((run / "metrics.json").read_text()), load_file(run / "weights" / "model.safetensors")


@pytest.fixture(scope="module")
def alone(patterns: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], tuple[dict, dict]]]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pictures, "draw_samples", lambda *given: None)
        patched.setattr(results, "draw_curves", lambda *given: None)
        patched.setattr(augment, "crop_and_flip", lambda images, side: F.interpolate(images, side))
        for name in ("jitter_colours", "soften_some"):
            patched.setattr(augment, name, lambda images: images)
        folder = tmp_path_factory.mktemp("alone")

        def run(batch: int) -> tuple[dict, dict]:
            return left(train("vit", f"folder:{patterns}", out=folder / str(batch), tiny=True, batch=batch, **SHORT))

        whole = run(12)
        yield lambda batch: whole if batch == 12 else run(batch)


def furthest(first: dict, second: dict) -> float:
    # a bias of the keys moves every score of a row alike, so its true gradient is zero and its own value means nothing
    return max((value - second[key]).abs().max().item() for key, value in first.items() if "key.bias" not in key)


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "accumulate"), [("ddp", 3), ("fsdp", 3)])
def test_two_processes_are_one_with_twice_the_batch(
    strategy: str, accumulate: int, alone: Callable[[int], tuple[dict, dict]], patterns: Path, tmp_path: Path
) -> None:
    settings = [f"{key}={value}" for key, value in SHORT.items()]
    words = ["vit", "--data", f"folder:{patterns}", "--tiny", "batch=12", *settings, "--out", str(tmp_path / "run")]
    done = shell(tmp_path, *words, f"accumulate={accumulate}", "--devices", "2", "--strategy", strategy)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("The run is in") == 1
    assert "Traceback" not in done.stderr
    metrics, weights = left(tmp_path / "run")
    expected, own = alone(12)
    np.testing.assert_allclose(metrics["losses"], expected["losses"], rtol=0, atol=1e-6)
    assert metrics["held_out"] == expected["held_out"]
    assert furthest(own, weights) < 1e-6
    command = (tmp_path / "run" / "command.txt").read_text()
    assert "--devices 2" in command
    assert ("--strategy fsdp" in command) == (strategy == "fsdp")


def test_half_the_batch_is_another_run(alone: Callable[[int], tuple[dict, dict]]) -> None:
    assert furthest(alone(12)[1], alone(6)[1]) > 2e-5


@pytest.mark.slow
def test_what_one_process_cannot_read_ends_all(write_patterns: Callable[..., Path], tmp_path: Path) -> None:
    root = write_patterns(tmp_path / "data", train=8, val=2)
    files = sorted(root.glob("train/*/*.png"))
    file = files[int(Order(len(files), 4, seed=0)[3][1])]  # the second sample of a batch is the second process's
    file.write_bytes(b"not a picture")
    words = ["--data", f"folder:{root}", "--tiny", "steps=8", "batch=4", "save_every=2", "--devices", "2"]
    done = shell(tmp_path, "vit", *words, "--out", str(tmp_path / "run"))
    assert done.returncode != 0
    assert f"{file.parent.name}/{file.name}: not a picture" in done.stderr
    assert "Traceback" not in done.stderr
    assert torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 2


def test_shares_are_the_batch() -> None:
    order = Order(20, 6, 0)
    shares = [Share(order, rank, 3) for rank in range(3)]
    for step in range(8):
        rows = np.stack([share[step] for share in shares], axis=1)
        np.testing.assert_array_equal(rows.reshape(-1), order[step])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"devices": 0}, "devices=0: expected a whole number of 1 or more"),
        ({"nodes": -1}, "nodes=-1: expected a whole number of 1 or more"),
        ({"strategy": "dp"}, "strategy='dp': expected ddp or fsdp"),
        ({"devices": 2, "nodes": 2}, "batch=6 cannot be shared evenly by 4 processes; give a multiple of 4"),
    ],
)
def test_machines_that_cannot_be_used_are_refused(given: dict, told: str) -> None:
    with pytest.raises(TrainingError, match=told):
        check_machines({"devices": 1, "nodes": 1, "strategy": "ddp"} | given, batch=6)
