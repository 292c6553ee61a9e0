"""`sightline point` through the shell: folders, boxes, JSON, what is asked again and what is not, bad input."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from sightline.cli.main import run
from sightline.data.scenes import Scenes
from sightline.data.vocabulary import Vocabulary
from sightline.systems.visual7w import Visual7W, Visual7WPointing
from sightline.tasks.point import point, share_of

Captured = pytest.CaptureFixture[str]
WORDS = ("what", "color", "is", "the", "cube", "sphere", "red", "blue", "gray", "how", "many", "one", "two")
SIZES = {"vocab": 4 + len(WORDS), "image_size": 32, "width": 8, "embedding": 6, "hidden": 10, "attention": 4}


def save(folder: Path, system: Visual7W | Visual7WPointing) -> None:
    system.save_pretrained(folder)
    Vocabulary(WORDS).save(folder / "words.json")
    (folder / "card.json").write_text(json.dumps({"data": "toy scenes"}), "utf-8")


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small random systems: one that answers, one that points, one that points without attention."""
    home = tmp_path_factory.mktemp("toys")
    torch.manual_seed(0)
    save(home / "seeing", Visual7W(**SIZES))
    save(home / "pointing", Visual7WPointing(**SIZES, region=6))
    save(home / "even", Visual7WPointing(**SIZES, region=6, kind="even"))
    return home


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two scenes and a broken file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scenes").mkdir()
    for name, pixels in zip(("one", "two"), Scenes(seed=0, size=48, count=2).images([0, 1]), strict=True):
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(tmp_path / "scenes" / f"{name}.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    return tmp_path


def test_for_persons(home: Path, toys: Path, capsys: Captured) -> None:
    assert run(["point", "scenes/one.png", "the red cube", "-s", str(toys / "pointing")]) == 0
    shown = capsys.readouterr().out
    meant = point("scenes/one.png", "the red cube", system=toys / "pointing")
    left, top, right, bottom = meant.box
    place = f"left {left:.0f}, top {top:.0f}, right {right:.0f}, bottom {bottom:.0f}"
    assert shown.startswith(f"one.png: {place} ({meant.probability:.0%})\n")
    close = len(meant.boxes) > 1 and meant.boxes[1][1] >= 0.8 * meant.probability
    assert ("nearly as likely: left " in shown) is close
    assert "knows toy scenes." in shown
    others = [share for _, share in meant.boxes[1:]]
    rest = 1 - meant.probability - sum(others)
    (line,) = [line for line in shown.splitlines() if line.startswith("  the next boxes: ")]
    shares = [share_of(share) for share in others if share >= 0.0005]
    told = "; ".join([*shares, f"all others, those that overlap these too, {share_of(rest)}"])
    assert line.removeprefix("  the next boxes: ") == told
    closing = shown.splitlines()[-1]
    assert "  " not in closing
    assert closing.startswith("A map shows where attention went, not why.")
    assert closing.endswith("the box is chosen by what each box holds: they do not explain it.")
    for suffix in (".png", ".html", ".json"):
        assert (home / "points" / f"one.point{suffix}").is_file()


def test_for_machines_over_a_folder_with_a_bad_file(home: Path, toys: Path, capsys: Captured) -> None:
    command = ["point", "scenes", "broken.png", "which one is red?", "--json", "-o", "out"]
    assert run([*command, "-s", str(toys / "pointing")]) == 2
    captured = capsys.readouterr()
    answer = json.loads(captured.out)
    assert [Path(result["image"]).name for result in answer["results"]] == ["one.png", "two.png"]
    for result in answer["results"]:
        assert result["question"] == "which one is red"
        assert result["unknown"] == ["which"]
        assert not result["given"]
        left, top, right, bottom = result["box"]
        assert 0 <= left < right <= 48
        assert 0 <= top < bottom <= 48
        shares = [one["probability"] for one in result["boxes"]]
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) + result["rest"] == pytest.approx(1)
        assert Path(result["picture"]).read_bytes()[:4] == b"\x89PNG"
    assert [failure["image"] for failure in answer["failures"]] == ["broken.png"]
    assert "<html" in Path(answer["index"]).read_text("utf-8")
    assert captured.err.count("\n") == 1


def test_given_boxes_are_chosen_from(home: Path, toys: Path, capsys: Captured) -> None:
    command = ["point", "scenes/one.png", "the cube", "-s", str(toys / "pointing"), "--json"]
    assert run([*command, "--boxes", "1,2,20,21; 20,20,40,44;30,0,48,48"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert result["given"]
    found = sorted(tuple(one["box"]) for one in result["boxes"])
    assert found == [(1, 2, 20, 21), (20, 20, 40, 44), (30, 0, 48, 48)]
    assert sum(one["probability"] for one in result["boxes"]) == pytest.approx(1)


def test_the_same_is_not_asked_again(home: Path, toys: Path, capsys: Captured) -> None:
    for system, endings in (("pointing", 3), ("even", 2)):
        command = ["point", "scenes", "the sphere", "-s", str(toys / system), "-o", system]
        assert run(command) == 0
        assert "asked earlier" not in capsys.readouterr().out
        assert len(list((home / system).glob("two.point.*"))) == endings
        (home / system / "two.point.png").unlink()
        assert run(command) == 0
        assert capsys.readouterr().out.count("asked earlier") == 1


def test_another_question_has_files_of_its_own(home: Path, toys: Path, capsys: Captured) -> None:
    command = ["point", "scenes/one.png", "-s", str(toys / "pointing")]
    for question in ("the sphere", "the cube"):
        assert run([*command, question]) == 0
    assert (home / "points" / "one-2.point.png").is_file()
    capsys.readouterr()
    assert run([*command, "the cube", "--boxes", "1,2,20,21; 20,20,40,44"]) == 0
    assert "Replaced 3 earlier results in points;" in capsys.readouterr().out
    assert json.loads((home / "points" / "one.point.json").read_text("utf-8"))["asked"]["question"] == "the sphere"


def test_misuse_is_one_line(home: Path, toys: Path, capsys: Captured) -> None:
    known = ["-s", str(toys / "pointing")]
    for command, message in (
        (["point"], "needs a picture and what to point at"),
        (["point", "scenes"], "needs a picture and what to point at"),
        (["point", "scenes", "...", *known], "the question is empty"),
        (["point", "scenes", "wer ist das", *known], "no word of 'wer ist das' is known"),
        (["point", "nothing.png", "the cube", *known], "no such file"),
        (["point", "scenes", "the cube", "-s", "nowhere"], "no answerer 'nowhere'"),
        (["point", "scenes", "the cube", "-s", str(toys / "seeing")], "is for the verb ask"),
        (["point", "scenes/one.png", "the cube", *known, "--boxes", "1,2,3"], "give left,top,right,bottom"),
        (["point", "scenes/one.png", "the cube", *known, "--boxes", "a,b,c,d"], "give left,top,right,bottom"),
        (["point", "scenes/one.png", "the cube", *known, "--boxes", "1,2,3,4"], "two or more to choose from"),
        (["point", "scenes/one.png", "the cube", *known, "--boxes", "1,2,30,40;9,9,5,12"], "left < right"),
        (["point", "scenes/one.png", "the cube", *known, "--boxes", "1,2,30,40;9,9,50,60"], "within the picture"),
        (["point", "scenes", "the cube", *known, "--boxes", "1,2,30,40;2,2,9,9"], "those of one picture"),
        (["point", "scenes", "the cube", *known, "--out", "broken.png"], "--out broken.png: cannot write there"),
    ):
        assert run(command) == 2, command
        error = capsys.readouterr().err
        assert message in error, command
        assert "Traceback" not in error
