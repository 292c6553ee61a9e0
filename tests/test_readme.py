"""The README says what the cards say, and its Python runs."""

import re
from pathlib import Path

import pytest
from PIL import Image

from sightline.checkpoints import bundled_card, bundled_names
from sightline.checkpoints.bundled import bundled_folder
from sightline.cli.main import _top
from sightline.cli.systems import _size, markdown_table

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


def test_table_of_systems_is_generated_from_the_cards():
    cards = [{"name": n, **bundled_card(n), "bytes": _size(bundled_folder(n))} for n in bundled_names()]
    found = re.search(r"<!-- systems:.*?-->\n(.*?)<!-- end systems -->", README, re.DOTALL)
    assert found, "README.md has lost its table of systems"
    assert found[1].strip() == markdown_table(cards), "run: sightline systems --markdown, and paste it into README.md"


def test_every_link_to_a_file_leads_somewhere():
    root = Path(__file__).resolve().parents[1]
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (root / target).exists(), target


def test_pictures_that_nobody_has_are_made_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = re.search(r'^python -c "(.*)"$', README, re.MULTILINE)
    assert made, "README.md no longer says how to make scene.png and digit.png"
    monkeypatch.chdir(tmp_path)
    exec(made[1])  # the document is ours
    used = set(re.findall(r"\b(?:scene|digit)\.png", README))
    assert {path.name for path in tmp_path.iterdir()} == used
    for name in used:
        assert README.index(name) > made.start(), f"{name} is used before it is made"
        assert Image.open(tmp_path / name).width > 100


def test_help_and_readme_say_the_same_of_what_it_is() -> None:
    first = (_top.__doc__ or "").splitlines()[0].rstrip(".")
    assert f"**{first}**" in README
