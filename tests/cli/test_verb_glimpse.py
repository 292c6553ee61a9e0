"""`sightline glimpse` through the shell."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sightline.checkpoints.bundled import bundled_card
from sightline.cli.main import run
from sightline.systems.ram import RAM

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two drawings, a picture of nothing, a broken file, and a small random RAM."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    RAM(what=16, where=8, locator=8, glimpses=2).save_pretrained(tmp_path / "tiny_ram")
    pixels = np.full((60, 80), 240, np.uint8)
    pixels[10:50, 36:44] = 20
    (tmp_path / "scans").mkdir()
    for name in ("one.png", "two.png"):
        Image.fromarray(pixels).save(tmp_path / "scans" / name)
        pixels = pixels.T.copy()
    Image.new("L", (50, 50), 200).save(tmp_path / "empty.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    return tmp_path


def test_for_persons(home: Path, capsys: Captured) -> None:
    assert run(["glimpse", "scans/one.png", "-s", "tiny_ram"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("one.png: ")
    assert "canvas: grey, inverted (dark ink on light ground)" in shown
    for suffix in (".png", ".gif", ".html", ".json"):
        assert (home / "glimpses" / f"one.glimpse{suffix}").is_file()


def test_the_limits_of_bundled_weights_are_told_once(home: Path, capsys: Captured) -> None:
    assert run(["glimpse", "scans"]) == 0
    told = f"ram takes every picture for one of the digits that it learned from ({bundled_card('ram')['data']})."
    assert capsys.readouterr().out.splitlines().count(told) == 1
    assert run(["glimpse", "scans", "-s", "tiny_ram", "-o", "own"]) == 0
    assert "learned from" not in capsys.readouterr().out


def test_for_machines_over_a_folder_with_bad_files(home: Path, capsys: Captured) -> None:
    assert run(["glimpse", "scans", "empty.png", "broken.png", "-s", "tiny_ram", "--json", "-o", "out"]) == 2
    captured = capsys.readouterr()
    answer = json.loads(captured.out)
    assert [Path(result["image"]).name for result in answer["results"]] == ["one.png", "two.png"]
    # whether a file is a picture is judged before any is read
    assert [failure["image"] for failure in answer["failures"]] == ["broken.png", "empty.png"]
    assert "one tone" in answer["failures"][1]["error"]
    first = answer["results"][0]
    assert len(first["glimpses"]) == 2
    assert sum(entry["probability"] for entry in first["labels"]) == pytest.approx(1, abs=1e-4)
    assert Path(answer["index"]).is_file()
    assert captured.err.count("\n") == 2


def test_what_is_there_is_not_read_again(home: Path, capsys: Captured) -> None:
    command = ["glimpse", "scans", "-s", "tiny_ram"]
    assert run(command) == 0
    before = {path.name: path.stat().st_mtime_ns for path in (home / "glimpses").glob("*.glimpse.*")}
    first = capsys.readouterr().out
    assert "read earlier" not in first
    (home / "glimpses" / "two.glimpse.gif").unlink()
    assert run(command) == 0
    assert capsys.readouterr().out.count("read earlier") == 1
    after = {path.name: path.stat().st_mtime_ns for path in (home / "glimpses").glob("*.glimpse.*")}
    assert {name for name in after if after[name] == before[name]} == {n for n in before if n.startswith("one.")}
    assert run([*command, "--seed", "1"]) == 0
    shown = capsys.readouterr().out
    assert "read earlier" not in shown
    assert "Replaced 8 earlier results" in shown
    assert set(before) == {path.name for path in (home / "glimpses").glob("*.glimpse.*")}, "replaced, not added"


def test_misuse_is_one_line(home: Path, capsys: Captured) -> None:
    for command, message in (
        (["glimpse"], "at least one IMAGE"),
        (["glimpse", "scans", "-s", "nobody-s-system"], "nobody-s-system"),
        (["glimpse", "scans", "-s", "tiny_ram", "--copies", "0"], "copies"),
        (["glimpse", "nothing.png", "-s", "tiny_ram"], "no such file"),
        (["glimpse", "scans", "-s", "tiny_ram", "--seed", "-1"], "seed"),
        (["glimpse", "scans", "-s", "tiny_ram", "--out", "broken.png"], "--out broken.png: cannot write there"),
        (["glimpse", "scans", "-s", "scans"], "scans"),
    ):
        assert run(command) == 2
        error = capsys.readouterr().err
        assert message in error
        assert "Traceback" not in error
