"""How recordings of these tests see their calls, and what views write."""

import os

import pytest

from sightline.lens import deferred, dispatch, sheet


@pytest.fixture(autouse=True)
def each_test_as_in_its_own_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier test compiled does not send later ones to the mode.

    With SIGHTLINE_MODE_ALWAYS=1 all recordings use it; `test_dispatch.py` compares the two ways.  With
    SIGHTLINE_DEFER_ALWAYS=1 calls are deferred on a CPU as they are on a GPU; `test_deferred.py` compares those.
    """
    count, before = dispatch._compilations, dispatch._compilations()
    monkeypatch.setattr(dispatch, "_compilations", lambda: count() - before)
    monkeypatch.setattr(dispatch, "MODE_ALWAYS", os.environ.get("SIGHTLINE_MODE_ALWAYS") == "1")
    monkeypatch.setattr(deferred, "EVERYWHERE", os.environ.get("SIGHTLINE_DEFER_ALWAYS") == "1")
    monkeypatch.setattr(deferred, "_writers", set())


@pytest.fixture
def drawn_words(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """All texts that were written into pictures, in order."""
    drawn: list[str] = []
    original = sheet.ImageDraw.ImageDraw.text

    def text(self: object, place: object, words: str, **rest: object) -> None:
        drawn.append(words)
        original(self, place, words, **rest)

    monkeypatch.setattr(sheet.ImageDraw.ImageDraw, "text", text)
    return drawn
