"""`sightline look`, end to end on a tiny model: what it writes, says and returns, and what it does with bad files."""

import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sightline.checkpoints.bundled import bundled, bundled_folder
from sightline.cli.console import tracked
from sightline.cli.look import parse_bytes, parse_head, parse_query
from sightline.cli.main import run
from sightline.data.photographs import sample_photographs
from sightline.tasks.look import look as look_at

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copy(sample_photographs()[0], tmp_path / "cat.jpg")
    return tmp_path


def bomb() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 90_000, 90_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


def test_one_photograph_from_the_program(home: Path, tiny_vit: Path) -> None:
    code = "import sys; sys.argv[0] = 'sightline'; from sightline.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "look", "cat.jpg", "-m", str(tiny_vit), "--out", "made"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert all(re.fullmatch(r"sightline: .* … \(\d+ s\)", line) for line in done.stderr.splitlines()), done.stderr
    assert "not why; --check measures its effect." in done.stdout
    for name in ("cat.look.png", "cat.look.html"):
        assert str(Path("made", name)) in done.stdout
        assert (home / "made" / name).stat().st_size > 5_000
    page = (home / "made" / "cat.look.html").read_text("utf-8")
    assert "data:image/" in page
    assert not re.search(r"""(?:src|href)=["']?https?:""", page), "the page needs no network"
    assert not (home / "made" / "index.html").exists()


def test_samples_make_an_index_that_links_to_every_page(home: Path, tiny_vit: Path, capsys: Captured) -> None:
    assert run(["look", "--sample", "-m", str(tiny_vit)]) == 0
    told = capsys.readouterr().out
    page = (home / "looks" / "index.html").read_text("utf-8")
    for path in sample_photographs():
        assert f"{path.stem}.look.html" in page
        assert f"{path.name}: Attention is" in told
    for target in re.findall(r'(?:src|href)="([^"]+)"', page):
        assert (home / "looks" / target).is_file()


def test_what_takes_long_is_told_in_a_pipe_and_never_beside_json(
    home: Path, tiny_vit: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sightline.cli.console.FIRST", 0.001)
    assert run(["look", "cat.jpg", "-m", str(tiny_vit), "--check"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("sightline: ") for line in lines)
    assert any(re.fullmatch(r"sightline: Opening .* … \(0 s\)", line) for line in lines)
    assert any(line.startswith("sightline: Looking, and checking what was looked at … (") for line in lines)
    assert run(["look", "cat.jpg", "-m", str(tiny_vit), "--check", "--json"]) == 0
    assert capsys.readouterr().err == ""


def test_lines_of_a_batch_say_how_much_is_done_and_come_ever_more_seldom(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sightline.cli.console.FIRST", 0.05)
    for item in tracked(range(3), "Looking", quiet=False):
        time.sleep(0.25 if item == 1 else 0.0)
    lines = capsys.readouterr().err.splitlines()
    assert 1 <= len(lines) <= 3  # after 0.05 s and 0.15 s of 0.25 s
    assert set(lines) == {"sightline: Looking, 1 of 3 done (0 s)"}


def test_numbers_that_are_no_brightness_are_told_before_a_model_is_opened(
    home: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sightline.cli.look.open_model", lambda *given: pytest.fail("a model was opened"))
    heights = np.full((20, 20), 0.5, dtype=np.float32)
    heights[3, 4] = np.nan
    Image.fromarray(heights).save("heights.tif")
    Image.fromarray(np.full((20, 20), -3.0, dtype=np.float32)).save("depths.tif")
    for more in ([], ["--video", "walk.gif"]):
        assert run(["look", "heights.tif", "depths.tif", *more]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert lines[0] == (
            "sightline: heights.tif: holds values that are not finite numbers (NaN or infinite); replace these first"
        )
        assert lines[1].startswith("sightline: depths.tif: values from -3 to -3; expected 0..1 or 0..255")
        assert len(lines) == 2


def test_json_is_one_document_and_nothing_else(home: Path, tiny_vit: Path, capsys: Captured) -> None:
    assert run(["look", "cat.jpg", "-m", str(tiny_vit), "--json", "--method", "raw", "--layer", "0"]) == 0
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert captured.err == ""
    assert told["verb"] == "look"
    assert told["failures"] == []
    assert told["index"] is None
    (result,) = told["results"]
    assert result["image"] == "cat.jpg"
    assert result["method"] == "raw"
    assert result["grid"] == [4, 4]
    assert Path(result["picture"]).is_file()
    assert Path(result["page"]).is_file()
    assert 0 < result["peak"]["x"] < 1
    assert result["top_area"] <= result["top_share"] <= 1
    assert {entry["label"] for entry in result["labels"]} == {"cat", "cup", "rocket", "street"}
    assert sum(entry["probability"] for entry in result["labels"]) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    "words",
    [
        ["--method", "rollout"],
        ["--method", "gradient"],
        ["--method", "grad_rollout"],
        ["--method", "raw", "--head", "3"],
        ["--method", "raw", "--head", "max", "--query", "1,2"],
        ["--query", "mean"],
        ["--query", "5"],
    ],
)
def test_choices(home: Path, tiny_vit: Path, words: list[str], capsys: Captured) -> None:
    assert run(["look", "cat.jpg", "-m", str(tiny_vit), "--json", *words]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["grid"] == [4, 4]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--method", "magic"], "--method 'magic'"),
        (["--mass", "2"], "--mass 2.0"),
        (["--layer", "9", "--method", "raw"], "--layer 9: layers 0 to 1 look at the picture; -1 is the last"),
        (["--layer", "0", "--method", "rollout"], "--layer 0 belongs to --method raw or gradient"),
        (["--head", "7"], "--head 7: each layer has 4 heads"),
        (["--head", "7"], "give one from 0 to 3, or mean, max or min"),
        (["--head", "7", "--layer", "0", "--method", "raw"], "--head 7: each layer has 4 heads"),
        (["--head", "7", "--method", "rollout"], "--head 7 belongs to --method raw"),
        (["--head", "max", "--method", "rollout"], "--head max belongs to --method raw"),
        (["--query", "9,9", "--method", "raw"], "--query 9,9: the picture has 4 rows of 4 patches"),
        (["--query", "99"], "--query 99: the picture has 17 tokens, 0 to 16"),
        (["--limit", "1kB"], "--limit: the recording would keep more than 1,000 bytes"),
        (["--size", "48"], "--size 48: "),
    ],
)
def test_choices_that_cannot_be_had(home: Path, tiny_vit: Path, words: list[str], said: str, capsys: Captured) -> None:
    assert run(["look", "cat.jpg", "-m", str(tiny_vit), *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert said in captured.err
    for keyword in ("queries=", "sites=", "head=", "layer=", "method=", "limit="):
        assert keyword not in captured.err, "the words of the shell, not Python's"


@pytest.mark.parametrize("name", [None, "vit", "tiny", "run"])
def test_a_layer_that_there_is_not_is_told_before_any_model_is_opened(
    name: str | None, home: Path, tiny_vit: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sightline.cli.look.open_model", lambda *given: pytest.fail("opened"))
    if name == "run":
        shutil.copytree(bundled_folder("dino"), home / "run" / "weights")
    given = {None: [], "tiny": ["-m", str(tiny_vit)]}.get(name, ["-m", str(name)])
    for layer in ("12", "-12"):
        assert run(["look", "cat.jpg", *given, "--layer", layer]) == 2
        last = 1 if name == "tiny" else len(bundled("vit" if name == "vit" else "dino").layers) - 1
        told = f"sightline: --layer {layer}: layers 0 to {last} look at the picture; -1 is the last\n"
        assert capsys.readouterr().err == told


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (["--head", "7"], ["--head 7"]),
        (["--query", "9,9"], ["cat.jpg: --query 9,9", "the same for 1 more: --query 9,9"]),
    ],
)
def test_what_is_wrong_for_every_picture_is_said_once(
    home: Path, tiny_vit: Path, words: list[str], lines: list[str], capsys: Captured
) -> None:
    shutil.copy(home / "cat.jpg", home / "dog.jpg")
    assert run(["look", "cat.jpg", "dog.jpg", "-m", str(tiny_vit), *words]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == len(lines)
    for line, begins in zip(told, lines, strict=True):
        assert line.startswith(f"sightline: {begins}")


def test_the_check_is_told_to_persons_and_machines(home: Path, tiny_vit: Path, capsys: Captured) -> None:
    assert run(["look", "cat.jpg", "-m", str(tiny_vit), "--check"]) == 0
    assert "  check: probability of " in capsys.readouterr().out
    assert run(["look", "cat.jpg", "-m", str(tiny_vit), "--check", "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert result["check"]["summary"].startswith("probability of ")
    assert 0 <= result["check"]["effect"]["random_without"] <= 1


def test_every_kind_of_picture_goes_through(home: Path, tiny_vit: Path, capsys: Captured) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    exif = Image.Exif()
    exif[0x0112] = 6
    many = home / "many"
    many.mkdir()
    picture.save(many / "turned.jpg", exif=exif)
    picture.convert("CMYK").save(many / "print.jpg")
    picture.convert("P").save(many / "palette.png", transparency=0)
    picture.convert("RGBA").save(many / "alpha.png")
    picture.convert("L").save(many / "grey.jpg")
    Image.fromarray(noise[:, :, 0].astype(np.uint16) * 257).save(many / "deep.png")
    picture.save(many / "moving.gif", save_all=True, append_images=[picture.rotate(180)])
    picture.save(many / "moving.webp", save_all=True, append_images=[picture.rotate(180)])
    picture.resize((1, 1)).save(many / "dot.png")
    picture.resize((900, 50)).save(many / "strip [1] #ü.png")
    assert run(["look", "many", "-m", str(tiny_vit), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told["results"]) == 10
    turned = next(result for result in told["results"] if result["image"].endswith("turned.jpg"))
    with Image.open(turned["picture"]) as drawn:
        assert drawn.height > drawn.width
    index = Path(told["index"]).read_text("utf-8")
    assert "strip%20%5B1%5D%20%23%C3%BC.look.html" in index


def test_a_bad_file_in_a_batch_is_told_and_the_rest_goes_on(home: Path, tiny_vit: Path, capsys: Captured) -> None:
    held = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(held, "JPEG")
    bad = {
        "empty.jpg": b"",
        "text.png": b"hello there",
        "cut.jpg": held.getvalue()[:700],
        "bomb.png": bomb(),
    }
    for name, data in bad.items():
        (home / name).write_bytes(data)
    (home / "bare").mkdir()
    words = [*bad, "cat.jpg", "missing.jpg", "bare", "*.tif"]
    assert run(["look", *words, "-m", str(tiny_vit)]) == 2
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert len(lines) == len(bad) + 3
    for name, said in [
        ("empty.jpg", "empty"),
        ("text.png", "not a picture"),
        ("cut.jpg", "truncated"),
        ("bomb.png", "8,100,000,000 pixels"),
        ("missing.jpg", "no such file"),
        ("bare", "no photographs in this folder"),
        ("*.tif", "no photograph matches"),
    ]:
        (line,) = [line for line in lines if name in line]
        assert line.startswith("sightline: ")
        assert said in line
    assert "cat.look.png" in captured.out
    assert run(["look", *words, "-m", str(tiny_vit), "--json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert {failure["image"] for failure in told["failures"]} == {*bad, "missing.jpg", "bare", "*.tif"}
    assert len(told["results"]) == 1


def test_equal_names_do_not_collide_and_come_back_the_same(home: Path, tiny_vit: Path, capsys: Captured) -> None:
    sources = []
    for number, name in enumerate(["a/cat.jpg", "b/cat.jpg", "b/Cat.png"]):
        path = home / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (32, 32), (80 * number, 0, 0)).save(path)
        sources.append(name)
    words = ["look", *sources, "-m", str(tiny_vit), "--json"]
    assert run(words) == 0
    first = [(r["image"], r["picture"]) for r in json.loads(capsys.readouterr().out)["results"]]
    assert len({picture.casefold() for _, picture in first}) == 3
    assert run(words) == 0
    again = [(r["image"], r["picture"]) for r in json.loads(capsys.readouterr().out)["results"]]
    assert again == first
    assert run(["look", "b/cat.jpg", "-m", str(tiny_vit)]) == 0
    told = capsys.readouterr().out
    assert dict(first)["b/cat.jpg"] in told
    assert "Replaced 2 earlier results" in told


def test_foreign_files_are_left_alone(home: Path, tiny_vit: Path, capsys: Captured) -> None:
    (home / "looks").mkdir()
    (home / "looks" / "cat.look.png").write_bytes(b"mine")
    assert run(["look", "cat.jpg", "-m", str(tiny_vit), "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert result["picture"] == str(Path("looks", "cat-2.look.png"))
    assert (home / "looks" / "cat.look.png").read_bytes() == b"mine"
    (home / "looks" / "index.html").write_text("mine")
    assert run(["look", "--sample", "-m", str(tiny_vit)]) == 2
    assert "index.html was not written by sightline" in capsys.readouterr().err
    assert (home / "looks" / "index.html").read_text() == "mine"


def test_a_folder_that_cannot_be_written(home: Path, tiny_vit: Path, capsys: Captured) -> None:
    (home / "taken").write_text("a file")
    assert run(["look", "cat.jpg", "-m", str(tiny_vit), "--out", "taken"]) == 2
    assert "--out taken: cannot write there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("no-such-name", "no bundled name"),
        ("./nowhere", "no folder or file here"),
        ("bare", "the folder is empty"),
        ("cat.jpg", "cat.jpg"),
    ],
)
def test_models_that_cannot_be_had(home: Path, spec: str, said: str, capsys: Captured) -> None:
    (home / "bare").mkdir()
    assert run(["look", "cat.jpg", "-m", spec]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1


def test_a_model_without_attention_fails_with_advice(home: Path, capsys: Captured) -> None:
    from transformers import ResNetConfig, ResNetModel
    from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil

    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    ResNetModel(config).save_pretrained("resnet")
    ConvNextImageProcessorPil(size={"shortest_edge": 384}).save_pretrained("resnet")
    capsys.readouterr()
    assert run(["look", "cat.jpg", "-m", "resnet", "--json"]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("sightline: cat.jpg: no attention recorded")
    assert captured.err.count("\n") == 1
    assert "no attention recorded" in json.loads(captured.out)["failures"][0]["error"]


def test_the_query_that_was_chosen_is_told(home: Path, tiny_vit: Path) -> None:
    look = ["look", "cat.jpg", "-m", str(tiny_vit), "--method", "raw"]
    assert run([*look, "--query", "1,2", "--out", "made"]) == 0
    assert "raw, query 1,2, as in the picture" in (home / "made" / "cat.look.html").read_text("utf-8")
    assert look_at("cat.jpg", model=tiny_vit, method="raw", query=(1, 2), layer=0).asked == "layer 0, query 1,2"


def test_words_of_the_command_line() -> None:
    assert parse_bytes("1GiB") == 2**30
    assert parse_bytes("500MB") == 500_000_000
    assert parse_bytes("1.5 gb") == 1_500_000_000
    assert parse_bytes("4096") == 4096
    assert [parse_head(text) for text in ("mean", "max", "7", "-1")] == ["mean", "max", 7, -1]
    assert [parse_query(text) for text in ("auto", "class", "12", "3, 4")] == [None, "class", 12, (3, 4)]
    for parse, text in [(parse_bytes, "0"), (parse_bytes, "-1GB"), (parse_head, ""), (parse_query, "a b")]:
        with pytest.raises(ValueError, match="give"):
            parse(text)
