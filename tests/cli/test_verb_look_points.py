"""`sightline look` through a model that moves its points: a picture, a page and an animation, from the program."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from sightline.cli.main import run
from sightline.data.photographs import sample_photographs
from sightline.systems.ps_vit import PSViT


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copy(sample_photographs()[0], tmp_path / "cat.jpg")
    torch.manual_seed(0)
    model = PSViT(image_size=32, points=3, iterations=2, dim=12, depth=3, heads=2, stem=(4, 4, 6, 4), classes=3)
    torch.nn.init.normal_(model.steps[0].offset.weight)
    model.save_pretrained(tmp_path / "own")
    return tmp_path


def test_points_from_the_program(home: Path) -> None:
    code = "import sys; sys.argv[0] = 'sightline'; from sightline.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "look", "cat.jpg", "-m", "own", "--out", "made"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "In 2 looks the points went" in done.stdout
    for name in ("cat.look.png", "cat.look.html", "cat.look.gif"):
        assert str(Path("made", name)) in done.stdout
        assert (home / "made" / name).stat().st_size > 3_000
    with Image.open(home / "made" / "cat.look.gif") as animation:
        assert animation.n_frames > 3


def test_json_names_the_animation_and_the_points(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["look", "cat.jpg", "-m", "own", "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert Path(result["animation"]).is_file()
    assert torch.tensor(result["points"]).shape == (2, 9, 2)
    assert run(["look", "cat.jpg", "-m", "own", "--json", "--method", "gradient"]) != 0
    error = json.loads(capsys.readouterr().out)["error"]
    assert "not for models that move their points" in error
