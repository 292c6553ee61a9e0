"""A sentence over a photograph: under each word where the model looked, as one picture and as a page."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from sightline.lens.choices import Choice, base_of, choice_page, save_drawn
from sightline.lens.page_data import data_uri
from sightline.lens.paint import Array, Photograph, as_map, blend
from sightline.lens.view import strip


@dataclass(frozen=True)
class WordStrip:
    """Words, and for each a map (h, w) of where the model looked in one photograph.

    `scores` are numbers under the words (probabilities, say).  With `plain` picture and page start with the photograph
    itself, these words beneath; else the page opens on the map of word number `opens`.  Raises ValueError where words,
    maps and scores differ in number, for maps that are no maps, and where there is no such word.
    """

    image: Photograph
    words: Sequence[str]
    maps: Sequence[Array] | np.ndarray
    scores: Sequence[float] | None = None
    title: str = ""
    caption: str = ""
    plain: str = ""
    opens: int = 0

    def __post_init__(self) -> None:
        counts = {"words": len(self.words), "maps": len(self.maps)}
        if self.scores is not None:
            counts["scores"] = len(self.scores)
        if not len(self.words) or len(set(counts.values())) > 1:
            told = ", ".join(f"{count} {name}" for name, count in counts.items())
            raise ValueError(f"a strip needs a map for each word, and at least one word: {told} were given")
        if not 0 <= self.opens < len(self.words):
            raise ValueError(f"a strip of {len(self.words)} words cannot open on word number {self.opens}")
        for one in self.maps:
            as_map(one)

    def picture(self, columns: int = 6) -> Image.Image:
        """Draws the photograph once for each word, with the word's map on it and the word beneath."""
        return strip(
            self.image,
            self.words,
            self.maps,
            scores=self.scores,
            columns=columns,
            title=self.title or " ".join(self.words),
            caption=self.caption,
            plain=self.plain,
        )

    def page(self) -> str:
        """Writes one self-contained HTML page: choose a word, and see where the model looked; or the photograph."""
        base = base_of(self.image)
        scores = [""] * len(self.words) if self.scores is None else [f"{float(score):.2f}" for score in self.scores]
        choices = [Choice(self.plain or "photograph")]
        for word, heat, score in zip(self.words, self.maps, scores, strict=True):
            choices.append(Choice(word, blend(base, heat), f"where it looked for: {word}", score))
        how = "Choose a word: the map shows where the model looked for it."
        title, opens = self.title or " ".join(self.words), 0 if self.plain else 1 + self.opens
        return choice_page(base, choices, title=title, how=how, caption=self.caption, opens=opens)

    def save(self, path: str | Path) -> Path:
        """Writes .html (a page) or a picture (.png, .jpg, .webp); ValueError for another ending."""
        return save_drawn(path, self.page, self.picture)

    def _repr_html_(self) -> str:
        return (
            f'<img src="{data_uri(self.picture())}" alt="{html.escape(" ".join(self.words))}" style="max-width:100%">'
        )
