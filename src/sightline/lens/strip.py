"""A sentence over a photograph: under each word where the model looked, as one picture and as a page.

The page needs no network and no script: each word is a choice (tab, arrow keys, click) and style shows its map.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from sightline.lens.page_data import data_uri
from sightline.lens.paint import Array, Photograph, as_map, blend, photograph, shown_size
from sightline.lens.sheet import SMALL_PRINT
from sightline.lens.view import strip

PICTURES = (".png", ".jpg", ".jpeg", ".webp")

_STYLE = """
:root{color-scheme:light dark;--paper:#fbfaf7;--card:#fff;--ink:#1d1a16;--soft:#6d665d;--line:#e5dfd4;--hot:#b8390e}
@media(prefers-color-scheme:dark){:root{--paper:#131110;--card:#1c1917;--ink:#f1ece4;--soft:#a49b8f;--line:#35302b;--hot:#fca50a}}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:760px;margin:0 auto;padding:22px 20px}
h1{font:600 clamp(22px,4vw,32px)/1.2 ui-serif,Georgia,serif;margin:0 0 14px;overflow-wrap:anywhere}
input{position:absolute;opacity:0}
.stage{position:relative;border-radius:10px;overflow:hidden;line-height:0}
.stage img{width:100%;height:auto}
.stage img+img{position:absolute;inset:0;opacity:0;transition:opacity .15s}
.words{display:flex;flex-wrap:wrap;gap:6px;margin:14px 0}
label{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:4px 10px;cursor:pointer}
label small{display:block;color:var(--soft);font-variant-numeric:tabular-nums}
p{color:var(--soft);margin:6px 0}
"""


@dataclass(frozen=True)
class WordStrip:
    """Words, and for each a map (h, w) of where the model looked in one photograph.

    `scores` are numbers under the words (probabilities, say).  With `plain` the picture starts with the photograph
    itself and these words beneath.  Raises ValueError where words, maps and scores differ in number, and for maps that
    are no maps.
    """

    image: Photograph
    words: Sequence[str]
    maps: Sequence[Array] | np.ndarray
    scores: Sequence[float] | None = None
    title: str = ""
    caption: str = ""
    plain: str = ""

    def __post_init__(self) -> None:
        counts = {"words": len(self.words), "maps": len(self.maps)}
        if self.scores is not None:
            counts["scores"] = len(self.scores)
        if not len(self.words) or len(set(counts.values())) > 1:
            told = ", ".join(f"{count} {name}" for name, count in counts.items())
            raise ValueError(f"a strip needs a map for each word, and at least one word: {told} were given")
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
            caption=self.caption or SMALL_PRINT,
            plain=self.plain,
        )

    def page(self) -> str:
        """Writes one self-contained HTML page: choose a word, and see where the model looked."""
        shown = shown_size(photograph(self.image))
        shown.thumbnail((720, 720), Image.Resampling.LANCZOS)
        title = html.escape(self.title or " ".join(self.words))
        choices, pictures, labels, rules = [], [], [], []
        for number, (word, heat) in enumerate(zip(self.words, self.maps, strict=True)):
            name = html.escape(word)
            score = "" if self.scores is None else f"<small>{float(self.scores[number]):.2f}</small>"
            choices.append(f'<input type="radio" name="word" id="w{number}" aria-label="{name}">')
            pictures.append(f'<img src="{data_uri(blend(shown, heat))}" alt="where it looked for: {name}">')
            labels.append(f'<label for="w{number}">{name}{score}</label>')
            place = number + 2  # the photograph comes first
            rules.append(f"#w{number}:checked~.stage img:nth-child({place}){{opacity:1}}")
            rules.append(f"#w{number}:checked~.words label:nth-child({number + 1}),#w{number}:focus-visible~.words ")
            rules[-1] += f"label:nth-child({number + 1}){{border-color:var(--hot);color:var(--hot)}}"
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            '<meta name="generator" content="sightline">'
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
            "style-src 'unsafe-inline'\">"
            f"<title>{title}</title><style>{_STYLE}{''.join(rules)}</style></head>\n<body><main><h1>{title}</h1>\n"
            f'{"".join(choices)}\n<div class="stage"><img src="{data_uri(shown)}" alt="the photograph">'
            f'{"".join(pictures)}</div>\n<div class="words">{"".join(labels)}</div>\n'
            f"<p>Choose a word: the map shows where the model looked for it. {html.escape(self.caption)}</p>"
            f"<p>{html.escape(SMALL_PRINT)}</p></main></body></html>\n"
        )

    def save(self, path: str | Path) -> Path:
        """Writes .html (a page) or a picture (.png, .jpg, .webp); ValueError for another ending."""
        path = Path(path)
        kind = path.suffix.lower()
        if kind == ".html":
            path.write_text(self.page(), encoding="utf-8")
        elif kind in PICTURES:
            self.picture().save(path)
        else:
            raise ValueError(f"{path}: give a name that ends in .html, {', '.join(PICTURES)}")
        return path

    def _repr_html_(self) -> str:
        return (
            f'<img src="{data_uri(self.picture())}" alt="{html.escape(" ".join(self.words))}" style="max-width:100%">'
        )
