"""`sightline tour` through the shell, and the stops behind it."""

import json
from html import escape
from pathlib import Path

import pytest

from sightline.checkpoints.bundled import bundled_card, bundled_names
from sightline.cli.main import run
from sightline.cli.systems import figure
from sightline.tasks.tour import drawn_scene, left_out, stops

Captured = pytest.CaptureFixture[str]
ENCODERS = {"efficientnet_lite0"}  # bundled weights that no verb uses by themselves


def test_every_bundled_system_is_a_stop() -> None:
    assert set(stops()) == set(bundled_names()) - ENCODERS
    assert set(left_out()) == set(bundled_names()) & ENCODERS


@pytest.mark.timeout(400)
def test_all_stops_answer_and_are_on_the_page(tmp_path: Path, capsys: Captured) -> None:
    assert run(["tour", "--json", "-o", str(tmp_path / "out")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [stop["system"] for stop in told["stops"]] == stops(), "each once"
    assert told["left_out"] == left_out()
    page = Path(told["page"]).read_text("utf-8")
    for name, use in left_out().items():
        assert f"No stop: {name}, which answers nothing by itself ({use})." in page
    for stop in told["stops"]:
        assert stop["answer"]
        assert Path(stop["page"]).stat().st_size > 5_000
        assert stop["system"] in page
        assert escape(figure(bundled_card(stop["system"]))) in page
    assert page.count("data:image/png") == len(told["stops"])
    assert "http://" not in page
    assert "https://" not in page


def test_stops_by_name_and_unknown_ones(tmp_path: Path, capsys: Captured) -> None:
    assert run(["tour", "ram", "-o", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert said.startswith("1. ram (glimpse")
    assert "No stop" not in said  # who names stops knows what is left out
    assert run(["tour", "ramm", "-o", str(tmp_path / "out")]) != 0
    said = capsys.readouterr().err
    assert "no stop ramm on the tour; there are: " in said
    assert said.count("\n") == 1


def test_a_tour_again_says_what_it_replaces_and_leaves_what_is_not_its_own(tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "out"
    assert run(["tour", "ram", "-o", str(out)]) == 0
    assert "Replaced" not in capsys.readouterr().out
    assert run(["tour", "ram", "-o", str(out)]) == 0
    assert f"Replaced 2 earlier results in {out};" in capsys.readouterr().out
    assert run(["tour", "ram", "--json", "-o", str(out)]) == 0
    replaced = json.loads(capsys.readouterr().out)["replaced"]
    assert replaced == [str(out / "01-ram.html"), str(out / "index.html")]
    (out / "01-ram.html").write_text("mine")
    assert run(["tour", "ram", "-o", str(out)]) == 2
    assert "01-ram.html was not written by sightline" in capsys.readouterr().err
    assert (out / "01-ram.html").read_text() == "mine"


def test_the_scene_is_always_the_same() -> None:
    assert drawn_scene().tobytes() == drawn_scene().tobytes()
    assert drawn_scene(side=64).size == (64, 64)
