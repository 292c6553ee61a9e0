"""A run that is killed goes on as if it had not been, through the shell."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sightline.recipes.train import train

SETTINGS = ["steps=45", "batch=6", "save_every=7", "mix=0.5"]  # an epoch is 30 steps, so checkpoints fall within it
SHELL = """
from sightline.cli.main import main
main()
"""
KILLED = """
import os
import signal
from sightline.recipes.vit import Recipe

step = Recipe.training_step


def dies(recipe, batch, number):
    if recipe.global_step == 17:  # three steps after a checkpoint, in the middle of an epoch
        os.kill(os.getpid(), signal.SIGKILL)
    return step(recipe, batch, number)


Recipe.training_step = dies
"""


def shell(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    # one thread, since the order of sums decides the last digits
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)


@pytest.mark.slow
@pytest.mark.usefixtures("no_drawings")
def test_a_killed_run_goes_on_exactly(patterns: Path, tmp_path: Path) -> None:
    new = ["train", "vit", "--data", f"folder:{patterns}", "--tiny", *SETTINGS, "--out"]
    killed = shell(KILLED + SHELL, *new, str(tmp_path / "cut"))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    last = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 14
    assert not (tmp_path / "cut" / "metrics.json").exists()
    last.with_suffix(".new").write_bytes(b"half a checkpoint")  # killed while it wrote

    resumed = shell(SHELL, "train", "--resume", str(tmp_path / "cut"))
    assert resumed.returncode == 0, resumed.stderr
    given = dict(setting.split("=") for setting in SETTINGS)
    train("vit", f"folder:{patterns}", out=tmp_path / "whole", tiny=True, **given)
    whole, cut = (json.loads((tmp_path / run / "metrics.json").read_text()) for run in ("whole", "cut"))
    assert len(cut["losses"]) == 45
    np.testing.assert_allclose(cut["losses"], whole["losses"], rtol=0, atol=1e-6)
    assert cut["held_out"] == whole["held_out"]
    assert cut["measured"] == whole["measured"]
    weights = [load_file(tmp_path / run / "weights" / "model.safetensors") for run in ("whole", "cut")]
    for key, value in weights[0].items():
        torch.testing.assert_close(weights[1][key], value, rtol=0, atol=1e-6)
    assert {file.name for file in last.parent.iterdir()} == {"last.ckpt"}
