"""The README says what the cards say, and its Python runs."""

import re
from pathlib import Path

from sightline.checkpoints import bundled_card, bundled_names
from sightline.checkpoints.bundled import bundled_folder
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
