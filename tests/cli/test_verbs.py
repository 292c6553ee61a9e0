"""`classify`, `survey`, `systems`, `train` and `evaluate` through the shell."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sightline.checkpoints.bundled import bundled_card
from sightline.cli.main import run
from sightline.cli.train import _shown_by, parse_settings, told
from sightline.recipes.plan import NAMES

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Image.effect_noise((64, 48), 90).save(tmp_path / "noise.png")
    return tmp_path


def test_classify_for_persons(home: Path, tiny_vit: Path, capsys: Captured) -> None:
    assert run(["classify", "noise.png", "-m", str(tiny_vit), "--top", "2"]) == 0
    line = capsys.readouterr().out
    assert line.startswith("noise.png: ")
    assert line.count("%") == 2


def test_persons_read_spaces_and_machines_raw_names(home: Path, tiny_vit: Path, capsys: Captured) -> None:
    shutil.copytree(tiny_vit, home / "renamed")
    config = json.loads((home / "renamed" / "config.json").read_text("utf-8"))
    config["id2label"] = {number: f"a_{name}" for number, name in config["id2label"].items()}
    config["label2id"] = {name: number for number, name in config["id2label"].items()}
    (home / "renamed" / "config.json").write_text(json.dumps(config), "utf-8")
    names = {"a_cat", "a_cup", "a_rocket", "a_street"}
    for verb in (["classify", "noise.png"], ["look", "noise.png", "--check"]):
        assert run([*verb, "-m", "renamed"]) == 0
        said = capsys.readouterr().out
        assert any(name.replace("_", " ") in said for name in names)
        assert not [name for name in names if name in said]
        assert run([*verb, "-m", "renamed", "--json"]) == 0
        (result,) = json.loads(capsys.readouterr().out)["results"]
        assert {one["label"] for one in result["labels"]} <= names
    page = (home / "looks" / "noise.look.html").read_text("utf-8")
    assert "a rocket" in page
    assert "a_rocket" not in page


def test_classify_draws_where_it_looked_where_a_folder_is_named(home: Path, tiny_vit: Path, capsys: Captured) -> None:
    Image.new("RGB", (40, 40)).save("black.png")
    words = ["classify", "noise.png", "black.png", "-m", str(tiny_vit), "--out", "made", "--top", "2"]
    assert run(words) == 0
    told = capsys.readouterr().out
    for name in ("noise.classify.png", "black.classify.html", "index.html"):
        assert str(Path("made", name)) in told
        assert (home / "made" / name).stat().st_size > 500
    assert "A map shows where attention went, not why." in told
    page = (home / "made" / "noise.classify.html").read_text("utf-8")
    assert page.count("<li><span>") == 2, "as many classes as were asked for"
    assert run([*words, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    first = answer["results"][0]
    assert (first["picture"], first["page"]) == ("made/noise.classify.png", "made/noise.classify.html")
    assert answer["index"] == "made/index.html"
    assert len(answer["replaced"]) == 4
    assert run(["classify", "noise.png", "-m", str(tiny_vit), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["picture"] is None


def test_classify_ends_with_what_a_bundled_model_knows(home: Path, tiny_vit: Path, capsys: Captured) -> None:
    Image.new("RGB", (20, 20)).save("black.png")
    last = []
    for name in ("vit", str(tiny_vit)):
        assert run(["classify", "noise.png", "black.png", "-m", name]) == 0
        last.append(capsys.readouterr().out.splitlines()[2:])
    data = bundled_card("vit")["data"]
    assert last == [[f"vit names the likeliest of its 50 classes, whatever comes; it learned from {data}."], []]


def test_classify_for_machines_with_a_bad_file(home: Path, tiny_vit: Path, capsys: Captured) -> None:
    (home / "broken.png").write_bytes(b"no picture")
    assert run(["classify", ".", "-m", str(tiny_vit), "--json"]) == 2
    captured = capsys.readouterr()
    answer = json.loads(captured.out)
    assert answer["verb"] == "classify"
    assert [failure["image"] for failure in answer["failures"]] == ["broken.png"]
    (result,) = answer["results"]
    chances = [entry["probability"] for entry in result["labels"]]
    assert chances == sorted(chances, reverse=True)
    assert sum(chances) == pytest.approx(1, abs=1e-4)
    assert captured.err.count("\n") == 1


def test_samples_are_named_without_the_folder_of_the_package(home: Path, tiny_vit: Path, capsys: Captured) -> None:
    assert run(["classify", "--sample", "-m", str(tiny_vit)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["cat.jpg", "coffee.jpg", "rocket.jpg"]
    assert run(["look", "--sample", "-m", str(tiny_vit), "--query", "9,9"]) == 2
    assert capsys.readouterr().err.startswith("sightline: cat.jpg: --query 9,9")
    assert run(["classify", "--sample", "-m", str(tiny_vit), "--json"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert all(Path(result["image"]).is_file() for result in results), "a machine is told where they are"


def test_tiny_and_moving_pictures_are_remarked_on(home: Path, tiny_vit: Path, capsys: Captured) -> None:
    picture = Image.open("noise.png")
    picture.resize((1, 1)).save("dot.png")
    picture.save("moving.gif", save_all=True, append_images=[picture.rotate(180)])
    assert run(["classify", "noise.png", "dot.png", "moving.gif", "-m", str(tiny_vit)]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "sightline: note: dot.png has 1 x 1 pixels, too few to tell much: do not rely on what is said of it",
        "sightline: note: moving.gif has 2 frames, of which only the first is seen",
    ]
    assert run(["look", "dot.png", "noise.png", "-m", str(tiny_vit), "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert [one["image"] for one in json.loads(captured.out)["remarks"]] == ["dot.png"]


def test_survey(home: Path, tiny_vit: Path, capsys: Captured) -> None:
    assert run(["survey", "noise.png", "-m", str(tiny_vit), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["pixels"] == [1, 3, 32, 32]
    assert [(s["heads"], s["queries"], s["keys"]) for s in answer["sites"]] == [(4, 17, 17), (4, 17, 17)]
    assert answer["bytes"]["row"] == 2 * 4 * 17 * 4
    assert answer["bytes"]["matrices"] == 2 * 4 * 17 * 17 * 4
    assert run(["survey", "-m", str(tiny_vit)]) == 0
    table = capsys.readouterr().out
    assert "17 x 17" in table
    for site in answer["sites"]:
        assert site["site"] in table, "long names are not cut where no terminal limits the width"


def test_survey_is_of_the_model_that_look_takes(home: Path, capsys: Captured) -> None:
    from sightline.tasks.methods import usual_model

    assert run(["survey", "noise.png", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == usual_model()


def test_systems_lists_the_bundled_cards(capsys: Captured) -> None:
    from sightline.checkpoints import bundled_names

    assert run(["systems", "--json"]) == 0
    cards = json.loads(capsys.readouterr().out)["systems"]
    assert [card["name"] for card in cards] == list(bundled_names())
    assert run(["systems"]) == 0
    shown = capsys.readouterr().out
    for card in cards:
        assert f"\n{card['name']}" in f"\n{shown}"
        assert card["bytes"] > 0
        assert " ".join(str(card.get("data", "")).split()) in " ".join(shown.split()), "nothing is cut"
    assert max(map(len, shown.splitlines())) <= 120, "it can be read where no terminal folds it"


def test_systems_with_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    from sightline.checkpoints import bundled

    card = {"system": "vit", "image_size": 64, "classes": ["a", "b"], "data": "folder:x", "figure": "top-1 75.0%"}
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "card.json").write_text(json.dumps(card))
    (tmp_path / "small" / "model.safetensors").write_bytes(b"\0" * 2_000_000)
    monkeypatch.setattr(bundled_module(bundled), "_home", lambda: tmp_path)
    assert run(["systems"]) == 0
    shown = capsys.readouterr().out
    for cell in ("small", "vit", "folder:x", "75.0%", "2.0 MB"):
        assert cell in shown
    monkeypatch.setattr(bundled_module(bundled), "_home", lambda: tmp_path / "none")
    assert run(["systems"]) == 0
    assert "No weights come with this build" in capsys.readouterr().out


def bundled_module(function: Any) -> Any:
    import sys

    return sys.modules[function.__module__]


def test_train_and_evaluate_hand_over_what_was_said(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    import sightline.recipes.train as recipes

    given: list[Any] = []

    def train(system: Any, data: Any, **named: Any) -> Path:
        given.append((system, data, named))
        folder = home / "runs" / "vit"
        folder.mkdir(parents=True, exist_ok=True)
        figures = {"measured": {"top1": 0.51234, "pictures": 12800, "parts": [{"top1": 0.1}]}}
        (folder / "metrics.json").write_text(json.dumps(figures), "utf-8")
        (folder / "run.json").write_text(json.dumps({"system": system or "vit"}), "utf-8")
        return folder

    def evaluate(weights: Path, data: str, *, split: str) -> dict[str, Any]:
        given.append((weights, data, split))
        return {"top1": 0.5, "parts": [{"pictures": 3}]}

    (home / "x").mkdir()
    monkeypatch.setattr(recipes, "train", train)
    monkeypatch.setattr(recipes, "evaluate", evaluate)
    assert run(["train", "vit", "--data", "folder:x", "steps=20", "rate=1e-3", "--tiny", "--out", "o"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Measured on what was held out: top1 0.5123, pictures 12800.\nThe run is in ")
    assert f"`sightline look IMAGE --model {home / 'runs' / 'vit'}`" in said
    (home / "o" / "checkpoints").mkdir(parents=True)
    (home / "o" / "checkpoints" / "last.ckpt").touch()
    (home / "o" / "run.json").write_text(json.dumps({"system": "vit", "data": "folder:x"}), "utf-8")
    assert run(["train", "--resume", "o"]) == 0
    capsys.readouterr()
    (home / "o" / "weights").mkdir(parents=True)
    (home / "o" / "weights" / "config.json").write_text("{}", "utf-8")
    assert run(["evaluate", "o", "--data", "folder:x", "--split", "train", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == {"top1": 0.5, "parts": [{"pictures": 3}]}
    assert given == [
        ("vit", "folder:x", {"out": Path("o"), "resume": None, "tiny": True, "steps": 20, "rate": 1e-3}),
        (None, None, {"out": None, "resume": Path("o"), "tiny": False}),
        (Path("o", "weights"), "folder:x", "train"),
    ]


@pytest.mark.parametrize("system", NAMES)
def test_what_shows_a_run_is_a_verb_that_takes_its_weights(system: str, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"system": system}), "utf-8")
    verbs = {
        "segment": ("segmenter", "segmenter_hybrid"),
        "translate": ("seq2seq", "transformer"),
        "ask": ("visual7w",),
    }
    verbs |= {"point": ("visual7w_pointing",), "glimpse": ("ram",)}
    verbs["caption"] = ("show_and_tell", "show_attend_tell", "self_critical", "world_captions")
    wanted = next((verb for verb, systems in verbs.items() if system in systems), "look")
    shown = _shown_by(tmp_path)
    assert shown.partition(" ")[0] == ("" if system.endswith("_control") else wanted)
    if shown:
        assert run([wanted, "--help"]) == 0
        assert shown.rpartition(" ")[2] in capsys.readouterr().out


def test_a_run_trains_is_measured_and_looked_through(home: Path, capsys: Captured) -> None:
    for number in range(24):
        for name, colour in (("red", (200, 20, 20)), ("blue", (20, 20, 200))):
            path = home / "colours" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), tuple(c + number for c in colour)).save(path)
    words = ["train", "vit", "--data", "folder:colours", "--tiny", "steps=4", "batch=8", "save_every=2", "--out", "r"]
    assert run(words) == 0
    capsys.readouterr()
    assert run(["evaluate", "r", "--data", "folder:colours", "--json"]) == 0
    assert 0 <= json.loads(capsys.readouterr().out)["metrics"]["top1"] <= 1
    assert run(["look", "noise.png", "--model", "r", "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert result["grid"] == [4, 4]
    assert {entry["label"] for entry in result["labels"]} == {"red", "blue"}


def test_settings_are_python_values_or_words() -> None:
    got = parse_settings(["steps=20", "rate=1e-3", "sizes=(1,2)", "on=true", "off=None", "path=a/b", "w=1_0", "e="])
    wanted = {"steps": 20, "rate": 1e-3, "sizes": (1, 2), "on": True, "off": None, "path": "a/b", "w": 10, "e": ""}
    assert got == wanted
    for bad in ("steps", "=3", "a b=3", "a.b=3"):
        with pytest.raises(ValueError, match="key=value"):
            parse_settings([bad])


def test_nested_figures_are_told_in_lines() -> None:
    assert told({"a": 0.123456, "b": {"c": 2}, "d": [{"e": 1}, {"e": 2}]}) == [
        "a: 0.1235", "b:", "  c: 2", "d:", "  e: 1", "d:", "  e: 2",
    ]  # fmt: skip
