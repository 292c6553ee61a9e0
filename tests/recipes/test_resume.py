"""A run that is killed goes on as if it had not been, through the shell."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sightline.recipes.train import train

SHELL = [sys.executable, "-c", "from sightline.cli.main import main; main()"]
SETTINGS = ["steps=45", "batch=6", "save_every=7", "mix=0.5"]  # an epoch is 30 steps, so checkpoints fall within it


def start(*words: str) -> subprocess.Popen:
    # one thread, since the order of sums decides the last digits
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [*SHELL, *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen) -> None:
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 0, said


@pytest.mark.slow
def test_a_killed_run_goes_on_exactly(patterns: Path, tmp_path: Path) -> None:
    new = ["train", "vit", "--data", f"folder:{patterns}", "--tiny", *SETTINGS, "--out"]
    killed = start(*new, str(tmp_path / "cut"))
    last = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 150
    while not last.exists():
        assert killed.poll() is None, killed.communicate()[0]
        assert time.monotonic() < deadline, "no checkpoint was written"
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    killed.stdout.close()
    reached = torch.load(last, weights_only=True)["global_step"]
    assert reached % 7 == 0
    assert reached < 45
    assert not (tmp_path / "cut" / "metrics.json").exists()
    last.with_suffix(".new").write_bytes(b"half a checkpoint")  # killed while it wrote

    finish(start("train", "--resume", str(tmp_path / "cut")))
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
