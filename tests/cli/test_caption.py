"""`sightline caption` at the shell, with a small random captioner: files, folders, what is bad, what is kept."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from sightline.checkpoints.bundled import bundled_card
from sightline.cli.main import run
from sightline.data.photographs import sample_photographs
from sightline.data.vocabulary import Vocabulary
from sightline.systems.show_and_tell import ShowAndTell
from sightline.systems.show_attend_tell import ShowAttendTell
from sightline.tasks.caption import CaptionError, caption, open_captioner


def captioner(folder: Path, system: ShowAttendTell | ShowAndTell) -> Path:
    torch.manual_seed(0)
    for parameter in system.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    system.save_pretrained(folder)
    Vocabulary(["a", "dog", "runs", "on", "grass"]).save(folder / "vocabulary.json")
    (folder / "card.json").write_text(json.dumps({"encoder": "efficientnet_lite0", "image_size": 64}))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    small = ShowAttendTell(vocab=9, width=1280, embedding=8, hidden=12, attention=8, form="compact")
    return captioner(tmp_path_factory.mktemp("attending"), small)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return captioner(tmp_path_factory.mktemp("plain"), ShowAndTell(vocab=9, width=1280, embedding=8, hidden=12))


def test_each_photograph_gets_a_sentence_a_picture_and_a_page(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["caption", "--sample", "--system", str(folder), "--out", str(tmp_path / "out"), "--json", "--beam", "2"]
    assert run(given) == 0
    told = json.loads(capsys.readouterr().out)
    assert [Path(one["image"]).name for one in told["results"]] == ["cat.jpg", "coffee.jpg", "rocket.jpg"]
    for one in told["results"]:
        assert one["text"].rstrip(".").lower().split() == [word["word"] for word in one["words"]]
        assert all(0 < word["probability"] <= 1 for word in one["words"])
        assert Image.open(one["picture"]).width > 100
        assert "<script" not in Path(one["page"]).read_text("utf-8")
    assert Path(told["index"]).is_file()
    # again: nothing is done anew, and the answers are the same
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.png")}
    assert run(given[:-3]) == 0
    shown = capsys.readouterr().out
    assert shown.count("captioned earlier") == 0  # another beam
    assert "Replaced " in shown
    assert run(given) == 0
    assert json.loads(capsys.readouterr().out)["results"] == told["results"]
    assert len(times) == 3


def test_the_limits_of_bundled_weights_are_told_once_and_numbers_are_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "out"), "--beam", "1"]
    assert run(["caption", "--sample", "--system", "world_captions", *out]) == 0
    data = bundled_card("world_captions")["data"]
    told = f"world_captions says of every picture what is likely in those that it learned from ({data})."
    assert capsys.readouterr().out.splitlines().count(told) == 1
    assert "below each word its probability" in (tmp_path / "out" / "cat.caption.html").read_text("utf-8")
    assert run(["caption", "--sample", "--system", str(folder), *out]) == 0
    assert "learned from" not in capsys.readouterr().out


def test_what_is_held_is_not_captioned_again(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["caption", str(sample_photographs()[0]), "--system", str(folder), "--out", str(tmp_path)]
    assert run(given) == 0
    assert "earlier" not in capsys.readouterr().out
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.suffix in (".png", ".html")}
    assert run(given) == 0
    assert "captioned earlier" in capsys.readouterr().out
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in before} == before
    (tmp_path / next(iter(before))).write_bytes(b"changed by hand")
    assert run(given) == 0
    assert "earlier" not in capsys.readouterr().out
    assert (tmp_path / next(iter(before))).read_bytes() == b"changed by hand"


def test_a_system_without_attention_gives_the_sentence_alone(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photograph = sample_photographs()[0]
    given = ["caption", str(photograph), "--system", str(plain), "--out", str(tmp_path), "--json"]
    for _ in range(2):
        assert run(given) == 0
        assert json.loads(capsys.readouterr().out)["results"][0]["picture"] is None
    assert not list(tmp_path.glob("*.png"))
    said = caption(photograph, system=plain)
    assert said.attention is None
    with pytest.raises(CaptionError, match="nothing can be drawn"):
        said.picture()


def test_bad_input_is_one_line_and_the_rest_goes_on(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    good = str(sample_photographs()[0])
    code = run(["caption", str(broken), good, "--system", str(folder), "--out", str(tmp_path / "out")])
    output = capsys.readouterr()
    assert code == 2
    assert "broken.jpg" in output.err
    assert "Traceback" not in output.err
    assert "cat.jpg: " in output.out
    for given in (["caption"], ["caption", good, "--system", "nobody"], ["caption", good, "--beam", "0"]):
        assert run([*given, "--out", str(tmp_path / "none")]) != 0
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_caption_is_what_beam_search_says(folder: Path) -> None:
    opened = open_captioner(folder)
    said = caption(Image.new("RGB", (80, 40), (90, 120, 30)), system=opened, beam=3)
    assert str(said) == said.text
    assert said.attention is not None
    assert len(said.attention.maps) == len(said.words)
    for heat in said.attention.maps:
        assert abs(float(heat.sum()) - 1) < 1e-4
        assert heat.shape == (2, 2)
    assert said.score <= 0
    assert "<img" in said._repr_html_()
    assert not set(said.words) & {"<pad>", "<start>", "<unk>"}
