"""The ledger of an output folder: names that do not collide, foreign files that stay as they are."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sightline.cli.failures import Misuse
from sightline.cli.outputs import LEDGER, OutputFolder, index_page, replaced_files


def write(folder: OutputFolder, source: Path, text: str = "x") -> Path:
    (path,) = folder.names(source, (".txt",))
    path.write_text(text)
    folder.wrote(path, source)
    return path


def test_the_same_source_replaces_its_own_result_only(tmp_path: Path) -> None:
    one, two = Path("a/cat.jpg"), Path("b/cat.jpg")
    first = write(OutputFolder(tmp_path), one)
    assert write(OutputFolder(tmp_path), two) != first
    folder = OutputFolder(tmp_path)
    assert write(folder, one) == first
    assert folder.replaced == [first]


def test_a_result_that_was_changed_since_is_no_longer_ours(tmp_path: Path) -> None:
    first = write(OutputFolder(tmp_path), Path("cat.jpg"))
    first.write_text("edited by hand")
    folder = OutputFolder(tmp_path)
    second = write(folder, Path("cat.jpg"))
    assert second.name == "cat-2.txt"
    assert first.read_text() == "edited by hand"
    assert folder.replaced == []


@pytest.mark.parametrize("ledger", ["", "{}", "[1]", '{"written": {"cat.txt": 3}}', '{"written": [1]}'])
def test_an_unreadable_ledger_owns_nothing(tmp_path: Path, ledger: str) -> None:
    (tmp_path / LEDGER).write_text(ledger)
    (tmp_path / "cat.txt").write_text("mine")
    assert write(OutputFolder(tmp_path), Path("cat.jpg")).name == "cat-2.txt"
    assert (tmp_path / "cat.txt").read_text() == "mine"
    assert list(json.loads((tmp_path / LEDGER).read_text())["written"]) == ["cat-2.txt"]


def test_names_end_without_dots_and_spaces_and_differ_by_question(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path)
    names = [folder.names(Path(name), (".txt",))[0].name for name in ("Ein Baum.", "Ein Haus. .", "...")]
    assert names == ["Ein Baum.txt", "Ein Haus.txt", "picture.txt"]
    for about in ("what?", "how many?", "what?"):
        (path,) = folder.held(Path("cat.jpg"), (".txt",), about) or folder.names(Path("cat.jpg"), (".txt",), about)
        path.write_text(about)
        folder.wrote(path, Path("cat.jpg"), about)
        names.append(path.name)
        folder = OutputFolder(tmp_path)
    assert names[3:] == ["cat.txt", "cat-2.txt", "cat.txt"]


def test_fixed_names(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path)
    path = folder.fixed("index.html")
    path.write_text("x")
    folder.wrote(path)
    assert OutputFolder(tmp_path).fixed("index.html") == path
    path.write_text("changed by somebody")
    with pytest.raises(Misuse, match="not written by sightline"):
        OutputFolder(tmp_path).fixed("index.html")


def test_a_fixed_result_counts_as_replaced_and_an_index_does_not(tmp_path: Path) -> None:
    for again in (False, True):
        folder = OutputFolder(tmp_path)
        assert folder.index("all", []) is None
        page = folder.fixed("01-ram.html")
        page.write_text("x")
        folder.wrote(page)
        assert folder.index("all", [("a", "a.png", "a.html", "said")]) == tmp_path / "index.html"
        assert folder.replaced == ([page] if again else [])
        assert replaced_files(folder) == [str(one) for one in folder.replaced]
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(Misuse, match="not written by sightline"):
        OutputFolder(tmp_path).index("all", [("a", "a.png", "a.html", "said")])
    assert (tmp_path / "index.html").read_text() == "mine"
    assert replaced_files(None) == []


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine drawing text takes long
@given(stems=st.lists(st.text(min_size=1, max_size=120), min_size=1, max_size=6))
def test_names_are_plain_and_all_different(tmp_path_factory: pytest.TempPathFactory, stems: list[str]) -> None:
    folder = OutputFolder(tmp_path_factory.mktemp("out"))
    made = []
    for number, stem in enumerate(stems):
        source = Path(f"folder{number}") / (stem.replace("\0", "").replace("/", "") + "x.jpg")
        try:
            source.resolve()
        except (OSError, UnicodeEncodeError):
            continue  # not a name that a file can have
        made += folder.names(source, (".a", ".b"))
    assert len({path.name.casefold() for path in made}) == len(made)
    assert all(path.parent == folder.folder for path in made)


def test_the_index_escapes_what_names_hold() -> None:
    page = index_page("<script>", [('a"<b>&.jpg', "p?#.png", 'h"x.html', "x < y & z")])
    assert "<script>" not in page
    assert "<b>a&quot;&lt;b&gt;&amp;.jpg</b>" in page
    assert 'src="p%3F%23.png"' in page
    assert 'href="h%22x.html"' in page


def test_pictures_of_any_shape_stand_in_cells_of_one() -> None:
    style = index_page("all", [("a", "a.png", "a.html", "x"), ("b", "b.png", "b.html", "y")])
    assert "img{width:100%;aspect-ratio:4/3;object-fit:contain" in style


def test_earlier_results_are_found_again(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    first, other = tmp_path / "cat.png", tmp_path / "a" / "cat.png"
    folder = OutputFolder(tmp_path / "out")
    assert folder.held(first, (".txt", ".html")) is None
    for source in (other, first):
        for path in folder.names(source, (".txt", ".html")):
            path.write_text(str(source))
            folder.wrote(path, source)
    again = OutputFolder(tmp_path / "out")
    found = again.held(first, (".txt", ".html"))
    assert found is not None
    assert [path.name for path in found] == ["cat-2.txt", "cat-2.html"]
    assert again.held(first, (".txt", ".html")) is None, "given once already"
    assert OutputFolder(tmp_path / "out").held(first, (".txt", ".gif")) is None
    found[1].write_text("changed by somebody")
    assert OutputFolder(tmp_path / "out").held(first, (".txt", ".html")) is None
    assert OutputFolder(tmp_path / "out").held(other, (".txt", ".html")) is not None
