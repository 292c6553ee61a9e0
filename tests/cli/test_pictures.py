"""The frame of the verbs that answer about pictures, with an answer of one word: what is told, kept, left alone."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image

from sightline.cli.failures import Misuse
from sightline.cli.main import run
from sightline.cli.outputs import LEDGER
from sightline.cli.pictures import Batch, Made, Told, each, gather

Captured = pytest.CaptureFixture[str]
FULL = (".word.json", ".word.png", ".word.html")


@dataclass
class Word:
    """An answer as the tasks give one: with something to draw, or with attention None."""

    text: str
    attention: object | None = "a map"

    def save(self, path: Path) -> Path:
        path.write_text(f"drawn: {self.text}")
        return path


def tell(word: Word, paths: tuple[Path, ...]) -> Told:
    drawn = [str(path) for path in paths[1:]] or [None, None]
    return {"text": word.text, "picture": drawn[0], "page": drawn[1]}


def show(made: Made) -> str:
    return f"{made.source.name}: {made.told['text']}{' (earlier)' if made.kept else ''}"


def say(picture: Path) -> Word:
    """What the picture's name is; a broken one cannot be read."""
    if picture.stem == "broken":
        raise ValueError("is no picture")
    return Word(picture.stem)


def word(
    images: list[str], *, answer: Callable[[Path], Any] = say, as_json: bool = False, loud: bool = False, **rest: Any
) -> int:
    """A verb on the frame, as short as one can be; gives its exit code."""
    pictures, failures = gather(images)
    batch = Batch("word", pictures, failures, Path("out"), as_json)
    batch.answer_each(answer, tell, asked={"loud": loud}, forms=(FULL, FULL[:1]), doing="Saying", **rest)
    try:
        batch.finish("Words", sentence=lambda told: told["text"], show=show, close=lambda told: f"like {told['text']}")
    except typer.Exit as ended:
        return ended.exit_code
    return 0


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    for name in ("a", "b", "c"):
        Image.new("RGB", (16, 16)).save(f"in/{name}.png")
    return tmp_path


def written() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path("out").iterdir() if path.name != LEDGER}


def test_what_is_named_is_found_once_and_what_is_not_there_is_told(capsys: Captured) -> None:
    Path("empty").mkdir()
    pictures, failures = gather(["in/b.png", "in/*.png", "in", "nowhere.png", "empty", "in/*.gif"])
    assert [picture.name for picture in pictures] == ["b.png", "a.png", "c.png"]
    assert [source for source, _ in failures] == ["nowhere.png", "empty", "in/*.gif"]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    for (source, _), line in zip(failures, lines, strict=True):
        assert line.startswith("sightline: ")
        assert source in line
    assert len(gather(["in"], True)[0]) > 3
    assert [path.name for path in gather(["in"], True)[0]][-3:] == ["a.png", "b.png", "c.png"]


def test_files_that_are_no_pictures_are_told_before_anything_is_opened(capsys: Captured) -> None:
    Path("in/void.png").touch()
    Path("in/page.png").write_text("<!doctype html>")
    Path("in/cut.png").write_bytes(Path("in/a.png").read_bytes()[:45])  # its header is whole
    pictures, failures = gather(["in", "in/void.png"])
    assert [picture.name for picture in pictures] == ["a.png", "b.png", "c.png"]
    assert [source for source, _ in failures] == ["in/cut.png", "in/page.png", "in/void.png"]
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "sightline: in/cut.png: the file is truncated (the rest of the picture is missing)"
    assert told[1].startswith("sightline: in/page.png: a web page")
    assert told[2:] == ["sightline: in/void.png: the file is empty"]


def test_of_many_pictures_the_headers_are_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("in/cut.png").write_bytes(Path("in/a.png").read_bytes()[:45])
    with Image.open("in/a.png") as picture:
        size = picture.width * picture.height
    for judged, found in ((size, 4), (4 * size, 3)):
        monkeypatch.setattr("sightline.cli.pictures.JUDGED", judged)
        assert len(gather(["in"])[0]) == found


def test_a_picture_that_is_a_line_is_refused(capsys: Captured) -> None:
    for width, height in ((4000, 3), (3, 4000), (20, 1)):
        Image.new("RGB", (width, height)).save(f"in/{width}.png")
    assert [picture.name for picture in gather(["in/4000.png", "in/3.png", "in/20.png"])[0]] == ["20.png"]
    first, second = capsys.readouterr().err.splitlines()
    told = "pixels, one side more than 20 times the other: nothing could be seen on it; cut out a piece"
    assert first == f"sightline: in/4000.png: has 4000 x 3 {told}"
    assert second == f"sightline: in/3.png: has 3 x 4000 {told}"


@pytest.mark.parametrize(
    "words",
    [
        ["caption"],
        ["segment"],
        ["glimpse"],
        ["classify"],
        ["look"],
        ["look", "--video", "walk.gif"],
        ["ask", "what is it?"],
        ["point", "the cube"],
    ],
    ids=" ".join,
)
def test_of_an_empty_folder_every_verb_says_so_and_makes_nothing(
    words: list[str], home: Path, capsys: Captured
) -> None:
    Path("empty").mkdir()
    verb, *rest = words
    assert run([verb, "empty", *rest]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert "empty" in told.err
    assert run([verb, "empty", *rest, "--json"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert document["verb"] == verb
    assert [failure["image"] for failure in document["failures"]] == ["empty"]
    assert sorted(path.name for path in home.iterdir()) == ["empty", "in"]


def test_a_bad_picture_is_one_line_and_the_others_are_done(capsys: Captured) -> None:
    Image.new("RGB", (16, 16)).save("in/broken.png")
    assert word(["in/*.png"]) == 2
    told = capsys.readouterr()
    assert told.err == "sightline: in/broken.png: is no picture\n"
    assert told.out.splitlines() == ["a.png: a", "b.png: b", "c.png: c", "All together: out/index.html", "like a"]
    names = [f"{stem}{ending}" for stem in "abc" for ending in FULL]
    assert sorted(written()) == sorted([*names, "index.html"])
    assert Path("out/index.html").read_text("utf-8").count("<img") == 3


def test_machines_get_one_document_with_what_failed(capsys: Captured) -> None:
    Image.new("RGB", (16, 16)).save("in/broken.png")
    assert word(["in", "nowhere.png"], as_json=True) == 2
    document = json.loads(capsys.readouterr().out)
    assert list(document) == ["verb", "results", "index", "replaced", "remarks", "failures"]
    assert [list(one) for one in document["results"]] == [["image", "text", "picture", "page", "asked"]] * 3
    assert document["results"][0]["asked"].keys() == {"loud", "sha256"}
    assert json.loads(Path("out/a.word.json").read_text("utf-8")) == document["results"][0]
    assert document["failures"][1] == {"image": "in/broken.png", "error": "is no picture"}


@pytest.mark.parametrize(("error", "code"), [(ValueError("bad"), 2), (RuntimeError("broke"), 1), (MemoryError(), 1)])
def test_the_exit_code_says_what_failed(error: Exception, code: int, capsys: Captured) -> None:
    def fail(picture: Path) -> Word:
        if picture.stem == "b":
            raise error
        return say(picture)

    assert word(["in"], answer=fail) == code
    told = capsys.readouterr()
    assert told.err.count("\n") == 1
    assert told.out.startswith("a.png: a\nc.png: c\n")


def test_what_would_fail_for_every_picture_is_raised_at_once() -> None:
    seen: list[Path] = []

    def fail(picture: Path) -> Word:
        seen.append(picture)
        raise Misuse("the question is at fault")

    with pytest.raises(Misuse, match="at fault"):
        word(["in"], answer=fail, fatal=(Misuse,))
    assert len(seen) == 1
    assert written() == {}


def test_an_error_of_the_caller_is_not_taken_for_the_picture_s() -> None:
    failures: list[tuple[str, BaseException]] = []

    def print_each() -> None:
        for _ in each([Path("a.png")], str, failures, doing="Saying", quiet=True):
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        print_each()
    assert failures == []


def test_what_is_there_is_kept_and_what_is_asked_anew_is_replaced(capsys: Captured) -> None:
    assert word(["in"]) == 0
    before = written()
    capsys.readouterr()

    def never(picture: Path) -> Word:
        raise AssertionError(picture)

    assert word(["in"], answer=never) == 0
    assert capsys.readouterr().out.count("(earlier)") == 3
    assert written() == before
    assert word(["in/a.png"], answer=lambda _: Word("A"), loud=True) == 0
    told = capsys.readouterr().out
    assert told == "a.png: A\nlike A\nReplaced 3 earlier results in out; another --out keeps both.\n"
    assert written().keys() == before.keys()
    Image.new("RGB", (5, 5)).save("in/b.png")  # another picture under the same name
    assert word(["in/b.png"], answer=lambda _: Word("other")) == 0
    assert "b.png: other" in capsys.readouterr().out


def test_nothing_of_others_is_written_over(capsys: Captured) -> None:
    Path("out").mkdir()
    Path("out/a.word.png").write_text("mine")
    assert word(["in/a.png"]) == 0
    assert sorted(written()) == ["a-2.word.html", "a-2.word.json", "a-2.word.png", "a.word.png"]
    Path("out/a-2.word.html").write_text("edited by hand")
    assert word(["in/a.png"]) == 0
    assert "earlier" not in capsys.readouterr().out
    assert Path("out/a.word.png").read_text() == "mine"
    assert Path("out/a-2.word.html").read_text() == "edited by hand"
    Path("other").mkdir()
    Image.new("RGB", (6, 6)).save("other/b.png")
    assert word(["in/b.png"]) == word(["other/b.png"]) == 0
    assert {"b.word.json", "b-2.word.json"} <= written().keys()
    Path("out/index.html").write_text("mine, too")
    with pytest.raises(Misuse, match=r"index\.html was not written by sightline"):
        word(["in"])
    assert Path("out/index.html").read_text() == "mine, too"


def test_without_attention_the_answer_stands_alone(capsys: Captured) -> None:
    plain: Callable[[Path], Word] = partial(Word, attention=None)
    for earlier in (0, 3):
        assert word(["in"], answer=lambda picture: plain(picture.stem)) == 0
        assert sorted(written()) == ["a.word.json", "b.word.json", "c.word.json"], "no index of nothing"
        assert capsys.readouterr().out.count("(earlier)") == earlier
    assert word(["in/a.png"], loud=True) == 0
    assert json.loads(Path("out/a-2.word.json").read_text("utf-8"))["picture"] == "out/a-2.word.png"
    Path("out/a-2.word.png").unlink()
    capsys.readouterr()
    assert word(["in/a.png"], loud=True) == 0
    assert "(earlier)" not in capsys.readouterr().out, "the JSON alone is not what it was"


def test_ctrl_c_keeps_what_is_finished_and_the_same_command_goes_on(capsys: Captured) -> None:
    def stopped(picture: Path) -> Word:
        if picture.stem == "c":
            raise KeyboardInterrupt
        return say(picture)

    with pytest.raises(KeyboardInterrupt):
        word(["in"], answer=stopped)
    assert sorted(written()) == sorted(f"{stem}{ending}" for stem in "ab" for ending in FULL)
    assert word(["in"]) == 0
    assert capsys.readouterr().out.count("(earlier)") == 2


def test_an_answer_that_is_cut_off_while_it_is_written_leaves_no_json() -> None:
    class Cut(Word):
        def save(self, path: Path) -> Path:
            if path.suffix == ".html":
                raise KeyboardInterrupt
            return super().save(path)

    with pytest.raises(KeyboardInterrupt):
        word(["in/a.png"], answer=lambda _: Cut("half"))
    assert sorted(written()) == ["a.word.png"]
    assert word(["in/a.png"]) == 0
    assert json.loads(Path("out/a.word.json").read_text("utf-8"))["text"] == "a"
    assert sorted(written()) == sorted(f"a{ending}" for ending in FULL)
