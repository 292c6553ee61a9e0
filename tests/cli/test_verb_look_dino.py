"""`sightline look` with DINO's masks, at a size, and as a video over frames."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageSequence

from sightline.cli.main import run
from sightline.systems.vit import VisionTransformer

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    made = VisionTransformer(image_size=32, patch=8, dim=24, depth=1, heads=3, classes=0, positions="dino")
    made.save_pretrained(tmp_path / "dino")
    card = {"system": "dino", "image_size": 32, "mean": [0.5] * 3, "std": [0.25] * 3}
    (tmp_path / "dino" / "card.json").write_text(json.dumps(card))
    (tmp_path / "frames").mkdir()
    for number in (2, 10, 1):
        Image.new("RGB", (60, 40), (20 * number, 90, 30)).save(tmp_path / "frames" / f"{number}.png")
    return tmp_path


def test_masks_at_a_size(home: Path, capsys: Captured) -> None:
    words = ["look", "frames/2.png", "-m", "dino/", "--size", "48", "--mass", "0.5", "--json"]
    assert run(words) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert result["method"] == "threshold"
    assert result["grid"] == [6, 9]
    assert result["masks"]["mass"] == 0.5
    assert len(result["masks"]["areas"]) == 3
    assert Path(result["picture"]).is_file()
    assert run([*words[:-1], "--method", "raw"]) == 0
    assert "over 3 heads" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "written"),
    [
        (["--video", "walk.gif"], "looks/walk.gif"),
        (["--video", "walk.gif", "--out", "films"], "films/walk.gif"),
        (["--video", "made/walk.webp", "--out", "films"], "made/walk.webp"),
    ],
)
def test_a_video_over_frames(home: Path, words: list[str], written: str, capsys: Captured) -> None:
    assert run(["look", "frames", "-m", "dino/", "--method", "raw", "--head", "2", *words]) == 0
    told = capsys.readouterr().out
    name = Path(written).name
    assert f"{name}: 3 frames of 60 x 40 pixels, all on one scale (dino · raw · head 2).\n  {written}\n" in told
    with Image.open(home / written) as opened:
        reds = [frame.convert("RGB").resize((1, 1)).getpixel((0, 0))[0] for frame in ImageSequence.Iterator(opened)]
    assert len(reds) == 3
    assert list(home.rglob("walk.*")) == [home / written]
    assert run(["look", "frames", "-m", "dino/", *words]) == 0
    assert "Replaced 1 earlier result" in capsys.readouterr().out


def test_a_video_replaces_no_file_of_somebody_else(home: Path, capsys: Captured) -> None:
    (home / "mine.gif").write_bytes(b"mine")
    assert run(["look", "frames", "-m", "dino/", "--video", "mine.gif", "--out", "."]) == 2
    assert "was not written by sightline" in capsys.readouterr().err
    assert (home / "mine.gif").read_bytes() == b"mine"


def test_a_broken_frame_is_told(home: Path, capsys: Captured) -> None:
    (home / "frames" / "3.png").write_bytes(b"no picture")
    assert run(["look", "frames", "-m", "dino/", "--video", "walk.gif", "--json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert (told["frames"], told["width"], told["height"], told["method"]) == (3, 60, 40, "raw")
    assert (told["video"], told["replaced"]) == ("looks/walk.gif", [])
    assert [failure["image"] for failure in told["failures"]] == ["frames/3.png"]
    assert (home / "looks" / "walk.gif").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--video", "walk.mp4"], ".gif or .webp"),
        (["--video", "walk.gif", "--check"], "--check"),
        (["--video", "walk.gif", "--head", "99"], "sightline: --head 99: each layer has 3 heads; give one from 0 to 2"),
        (["--video", "walk.gif", "--layer", "99"], "sightline: --layer 99: layers 0 to 0 look at the picture"),
        (["--video", "walk.gif", "--method", "gradient"], "not known for frames"),
        (["--mass", "2"], "mass"),
        (["--size", "3"], "size 3"),
    ],
)
def test_what_cannot_be_had(home: Path, words: list[str], said: str, capsys: Captured) -> None:
    assert run(["look", "frames", "-m", "dino/", *words]) == 2
    assert said in capsys.readouterr().err


def test_the_bundled_model_of_classes_is_named_on_request(home: Path, capsys: Captured) -> None:
    assert run(["look", "frames/1.png", "-m", "vit", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["method"] == "rollout"
