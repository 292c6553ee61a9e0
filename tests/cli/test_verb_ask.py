"""`sightline ask` through the shell: folders, choices, JSON, what is asked again and what is not, bad input."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from sightline.cli.main import run
from sightline.data.scenes import Scenes
from sightline.data.vocabulary import Vocabulary
from sightline.systems.visual7w import Visual7W, Visual7WPointing
from sightline.tasks.ask import ask

Captured = pytest.CaptureFixture[str]
WORDS = ("what", "color", "is", "the", "cube", "sphere", "red", "blue", "gray", "how", "many", "one", "two")
SIZES = {"vocab": 4 + len(WORDS), "image_size": 32, "width": 8, "embedding": 6, "hidden": 10, "attention": 4}


def save(folder: Path, system: Visual7W | Visual7WPointing) -> None:
    system.save_pretrained(folder)
    Vocabulary(WORDS).save(folder / "words.json")
    (folder / "card.json").write_text(json.dumps({"data": "toy scenes"}), "utf-8")


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small random systems: one that attends, one that does not, one that points."""
    home = tmp_path_factory.mktemp("toys")
    torch.manual_seed(0)
    save(home / "seeing", Visual7W(**SIZES))
    save(home / "first", Visual7W(**SIZES, kind="first"))
    save(home / "pointing", Visual7WPointing(**SIZES, region=6))
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
    assert run(["ask", "scenes/one.png", "What colour is the cube?", "-s", str(toys / "seeing")]) == 0
    shown = capsys.readouterr().out
    said = ask("scenes/one.png", "What colour is the cube?", system=toys / "seeing")
    assert shown.startswith(f"one.png: {said.answer or '(no answer)'}")
    assert "knows toy scenes." in shown
    closing = (
        'A word\'s map need not lie on what it names, and the words "what", "is" and "the" name nothing to look at.'
    )
    assert shown.splitlines()[-1] == closing
    assert run(["ask", "scenes/one.png", "red cube?", "-s", str(toys / "seeing")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "A map shows where attention went, not why."
    for suffix in (".png", ".html", ".json"):
        assert (home / "answers" / f"one.ask{suffix}").is_file()


def test_for_machines_over_a_folder_with_choices_and_a_bad_file(home: Path, toys: Path, capsys: Captured) -> None:
    command = ["ask", "scenes", "broken.png", "how many cubes?", "--choices", "one, two,seven", "--json", "-o", "out"]
    assert run([*command, "-s", str(toys / "seeing")]) == 2
    captured = capsys.readouterr()
    answer = json.loads(captured.out)
    assert [Path(result["image"]).name for result in answer["results"]] == ["one.png", "two.png"]
    for result in answer["results"]:
        costs = {choice["answer"]: choice["cost"] for choice in result["choices"]}
        assert list(costs) == ["one", "two", "seven"]
        assert result["answer"] == min(costs, key=costs.__getitem__)
        assert 1 / 3 < result["probability"] < 1
        assert result["unknown"] == ["cubes", "seven"]
        assert Path(result["picture"]).read_bytes()[:4] == b"\x89PNG"
    assert [failure["image"] for failure in answer["failures"]] == ["broken.png"]
    assert "<html" in Path(answer["index"]).read_text("utf-8")
    assert captured.err.count("\n") == 1


def test_the_same_question_is_not_asked_again(home: Path, toys: Path, capsys: Captured) -> None:
    command = ["ask", "scenes", "what color is the sphere?", "-s", str(toys / "seeing")]
    assert run(command) == 0
    assert "asked earlier" not in capsys.readouterr().out
    (home / "answers" / "two.ask.html").unlink()
    assert run(command) == 0
    assert capsys.readouterr().out.count("asked earlier") == 1
    assert run([*command, "--choices", "red,blue"]) == 0
    shown = capsys.readouterr().out
    assert "asked earlier" not in shown
    assert "Replaced 6 earlier results in answers;" in shown
    assert sorted(path.name for path in (home / "answers").glob("*.json") if path.name[0] != ".") == [
        "one.ask.json",
        "two.ask.json",
    ]


def test_machines_are_told_what_was_replaced(home: Path, toys: Path, capsys: Captured) -> None:
    command = ["ask", "scenes", "what color is the sphere?", "-s", str(toys / "seeing"), "--json"]
    for more, count in (([], 0), ([], 0), (["--choices", "red,blue"], 6)):
        assert run([*command, *more]) == 0
        replaced = json.loads(capsys.readouterr().out)["replaced"]
        assert len(replaced) == count
        assert all(Path(one).is_file() for one in replaced)


def test_another_question_has_files_of_its_own(home: Path, toys: Path, capsys: Captured) -> None:
    questions = ("what color is the sphere?", "how many cubes?")
    for question in questions:
        assert run(["ask", "scenes/one.png", question, "-s", str(toys / "seeing")]) == 0
        assert "Replaced" not in capsys.readouterr().out
    for question, name in zip(questions, ("one", "one-2"), strict=True):
        told = json.loads((home / "answers" / f"{name}.ask.json").read_text("utf-8"))
        assert told["asked"]["question"] == question
        assert run(["ask", "scenes/one.png", question, "-s", str(toys / "seeing")]) == 0
        assert "asked earlier" in capsys.readouterr().out


def test_a_system_without_attention_answers_without_a_picture(home: Path, toys: Path, capsys: Captured) -> None:
    assert run(["ask", "scenes", "what color is the cube?", "-s", str(toys / "first"), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [result["picture"] for result in answer["results"]] == [None, None]
    assert answer["index"] is None
    assert run(["ask", "scenes", "what color is the cube?", "-s", str(toys / "first")]) == 0
    shown = capsys.readouterr().out
    assert shown.count("asked earlier") == 2
    assert "map" not in shown


def test_misuse_is_one_line(home: Path, toys: Path, capsys: Captured) -> None:
    known = ["-s", str(toys / "seeing")]
    for command, message in (
        (["ask"], "needs a picture and a question"),
        (["ask", "scenes"], "needs a picture and a question"),
        (["ask", "scenes", " "], "needs a picture and a question"),
        (["ask", "scenes", "?!", *known], "the question is empty"),
        (["ask", "scenes", "wer ist das", *known], "no word of 'wer ist das' is known"),
        (["ask", "scenes", "what " * 30, *known], "at most 20 are read"),
        (["ask", "scenes", "what is red?", *known, "--choices", "red"], "two answers or more"),
        (["ask", "scenes", "what is red?", *known, "--choices", "red,,blue"], "choice '' has no words"),
        (["ask", "scenes", "what is red?", *known, "--beam", "0"], "beam"),
        (["ask", "nothing.png", "what is red?", *known], "no such file"),
        (["ask", "scenes", "what is red?", "-s", "nowhere"], "no answerer 'nowhere'"),
        (["ask", "scenes", "what is red?", "-s", str(toys / "pointing")], "is for the verb point"),
        (["ask", "scenes", "what is red?", *known, "--out", "broken.png"], "--out broken.png: cannot write there"),
    ):
        assert run(command) == 2, command
        error = capsys.readouterr().err
        assert message in error, command
        assert "Traceback" not in error
