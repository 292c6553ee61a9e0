"""`sightline segment` at the shell, with a small random segmenter: files, folders, what is bad, what is kept."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sightline.cli.failures import Misuse
from sightline.cli.main import run
from sightline.cli.segment import read_scales
from sightline.data.camvid import CLASSES, PALETTE
from sightline.data.photographs import sample_photographs
from sightline.systems.segmenter import Segmenter


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("segmenter")
    torch.manual_seed(0)
    network = Segmenter(image_size=64, patch=16, dim=24, depth=1, heads=3, classes=11, decoder_depth=1)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    network.save_pretrained(place)
    colours = [bytes(colour).hex() for colour in PALETTE.tolist()]
    card = {"classes": CLASSES, "palette": colours, "mean": [0.5] * 3, "std": [0.5] * 3, "short": 64}
    (place / "card.json").write_text(json.dumps(card), "utf-8")
    return place


def test_each_photograph_gets_mask_picture_page_and_areas(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(["segment", "--sample", "--system", str(folder), "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["verb"] == "segment"
    assert [Path(one["image"]).name for one in told["results"]] == ["cat.jpg", "coffee.jpg", "rocket.jpg"]
    for one in told["results"]:
        with Image.open(one["mask"]) as mask:
            numbers = np.asarray(mask)
            assert mask.mode == "P"
            assert mask.size == (one["width"], one["height"])
        assert sum(area["share"] for area in one["areas"]) == pytest.approx(1)
        for area in one["areas"]:
            assert area["share"] == pytest.approx((numbers == area["number"]).mean())
            assert CLASSES[area["number"]] == area["class"]
            assert 0 < area["sure"] <= 1
        named = {area["class"] for area in one["areas"]}
        assert one["absent"] == [name for name in CLASSES if name not in named]
        assert Image.open(one["picture"]).width > 300
        assert "<script" not in Path(one["page"]).read_text("utf-8")
    assert "cat.segment.html" in Path(told["index"]).read_text("utf-8")


def test_a_person_reads_a_table(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photograph = str(sample_photographs()[0])
    given = ["segment", photograph, "--system", str(folder), "--out", str(tmp_path), "--scales", "0.75,1", "--flip"]
    assert run(given) == 0
    said = capsys.readouterr().out
    assert said.startswith("cat.jpg\n")
    assert "area   sure" in said
    assert said.count("%") >= 2
    assert "where attention went, not why" in said
    assert "whatever the picture shows" in said
    told = json.loads((tmp_path / "cat.segment.json").read_text("utf-8"))
    missing = f"no pixel, so no row, colour or map: {', '.join(told['absent'])}\n"
    assert (missing in said) is bool(told["absent"])


def test_persons_read_spaces_and_machines_raw_names(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    renamed = shutil.copytree(folder, tmp_path / "renamed")
    card = json.loads((renamed / "card.json").read_text("utf-8"))
    card["classes"] = [f"a_{name}" for name in card["classes"]]
    (renamed / "card.json").write_text(json.dumps(card), "utf-8")
    given = ["segment", "--sample", "--system", str(renamed), "--out", str(tmp_path / "out")]
    assert run(given) == 0
    said = capsys.readouterr().out
    written = [path.read_text("utf-8") for path in (tmp_path / "out").glob("*.html")]
    assert len(written) == 4
    assert run([*given, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    for area in (area for one in told["results"] for area in one["areas"]):
        assert area["class"].startswith("a_")
        assert area["class"] not in said + "".join(written)
        assert f"  {area['class'].replace('_', ' ')} " in said


def test_what_is_held_is_not_segmented_again(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["segment", str(sample_photographs()[0]), "--system", str(folder), "--out", str(tmp_path)]
    assert run(given) == 0
    assert "earlier" not in capsys.readouterr().out
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.suffix in (".png", ".html")}
    assert len(before) == 3
    assert run(given) == 0
    assert "segmented earlier" in capsys.readouterr().out
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in before} == before
    assert run([*given, "--flip"]) == 0
    shown = capsys.readouterr().out
    assert "segmented earlier" not in shown  # another question
    assert "Replaced 4 earlier results" in shown
    assert json.loads((tmp_path / "cat.segment.json").read_text("utf-8"))["asked"]["smooth"] is True
    assert run([*given, "--flip", "--smooth"]) == 0  # which is the default
    assert "segmented earlier" in capsys.readouterr().out
    assert run([*given, "--flip", "--no-smooth"]) == 0
    assert "Replaced 4 earlier results" in capsys.readouterr().out
    assert "smooth" not in json.loads((tmp_path / "cat.segment.json").read_text("utf-8"))["asked"]
    assert run([*given, "--flip", "--no-smooth"]) == 0
    assert "segmented earlier" in capsys.readouterr().out
    (tmp_path / "cat.mask.png").write_bytes(b"changed by hand")
    assert run([*given, "--flip", "--no-smooth"]) == 0
    assert (tmp_path / "cat.mask.png").read_bytes() == b"changed by hand"
    assert (tmp_path / "cat-2.mask.png").is_file()


def test_bad_input_is_told_in_one_line_and_the_rest_is_done(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    strip = tmp_path / "strip.png"
    Image.new("RGB", (9000, 10)).save(strip)
    good = str(sample_photographs()[0])
    given = [
        "segment",
        str(bad),
        str(strip),
        good,
        str(tmp_path / "none.jpg"),
        "--system",
        str(folder),
        "--out",
        str(tmp_path / "o"),
    ]
    assert run([*given, "--json"]) == 2
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert len(told["results"]) == 1
    assert {Path(one["image"]).name for one in told["failures"]} == {"bad.jpg", "none.jpg", "strip.png"}
    assert said.err.count("strip.png: has 9000 x 10 pixels, one side more than 20 times the other") == 1
    assert said.err.count("\n") == 3


def test_the_folder_of_another_system_is_refused_by_its_card(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_folder = tmp_path / "run"
    shutil.copytree(folder, run_folder / "weights")
    card = json.loads((folder / "card.json").read_text("utf-8"))
    for system, code in (("segmenter", 0), ("vit", 2)):
        (run_folder / "weights" / "card.json").write_text(json.dumps(card | {"system": system}), "utf-8")
        assert run(["segment", "--sample", "--system", str(run_folder), "--out", str(tmp_path / system)]) == code
    said = capsys.readouterr().err
    assert "its card says that it holds vit; bundled is segmenter_hybrid" in said
    assert run(["glimpse", "digit.png", "--system", str(run_folder), "--out", str(tmp_path / "glimpse")]) == 2
    assert "no system that glimpses" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "segment needs at least one IMAGE"),
        (["--sample", "--scales", "big"], "--scales big: expected numbers between 0.1 and 4"),
        (["--sample", "--scales", "1,9"], "--scales 1,9: expected numbers"),
        (["--sample", "--scales", ""], "expected numbers"),
        (["--sample", "--system", "nowhere"], "no segmenter 'nowhere': no bundled name (segmenter_hybrid)"),
    ],
)
def test_wrong_use_is_refused(words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["segment", *words, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1


def test_scales_are_read() -> None:
    assert read_scales("1") == [1.0]
    assert read_scales(" 0.75, 1,1.25") == [0.75, 1.0, 1.25]
    for text in ("", "1,", "1;2", "0.09", "4.1", "nan", "-1"):
        with pytest.raises(Misuse, match=r"expected numbers between 0\.1 and 4"):
            read_scales(text)
