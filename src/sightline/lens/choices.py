"""A page that lays one of several pictures over a photograph: the one that is chosen.

The page needs no network and no script: each choice is a button (tab, arrow keys, click), and style shows its picture.
"""

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from sightline.lens.page_data import data_uri
from sightline.lens.paint import Photograph, photograph, shown_size
from sightline.lens.sheet import SMALL_PRINT

PICTURES = (".png", ".jpg", ".jpeg", ".webp")  # endings of what is saved as a picture

_STYLE = """
:root{color-scheme:light dark;--paper:#fbfaf7;--card:#fff;--ink:#1d1a16;--soft:#6d665d;--line:#e5dfd4;--hot:#b8390e}
@media(prefers-color-scheme:dark){:root{--paper:#131110;--card:#1c1917;--ink:#f1ece4;--soft:#a49b8f;--line:#35302b;--hot:#fca50a}}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:760px;margin:0 auto;padding:22px 20px}
h1{font:600 clamp(22px,4vw,32px)/1.2 ui-serif,Georgia,serif;margin:0 0 14px;overflow-wrap:anywhere}
input{position:absolute;opacity:0}
.stage{position:relative;border-radius:10px;overflow:hidden;line-height:0}
.stage img{width:100%;height:auto}
.stage img+img{position:absolute;inset:0;visibility:hidden;opacity:0;transition:opacity .15s}
.choices{display:flex;flex-wrap:wrap;gap:6px;margin:14px 0}
label{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:4px 10px;cursor:pointer}
label small{display:block;color:var(--soft);font-variant-numeric:tabular-nums}
label i{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.45em;border:1px solid #0003}
label i~small{display:inline;margin-left:.5em}
p{color:var(--soft);margin:6px 0}
"""


@dataclass(frozen=True)
class Choice:
    """What one button says (`name`, and `note` small beside it) and the picture that it lays on the photograph.

    Without a `picture` it shows the photograph itself.  `alt` tells the picture in words; `colour` is drawn as a patch
    before the name.
    """

    name: str
    picture: Image.Image | None = None
    alt: str = ""
    note: str = ""
    colour: np.ndarray | None = None


def save_drawn(
    path: str | Path,
    page: Callable[[], str],
    picture: Callable[[], Image.Image],
    gif: Callable[[], bytes] | None = None,
) -> Path:
    """Writes .html (the page), a picture (.png, .jpg, .webp) or, where there is one, .gif; ValueError for others."""
    path = Path(path)
    kind = path.suffix.lower()
    if kind == ".html":
        path.write_text(page(), encoding="utf-8")
    elif kind == ".gif" and gif is not None:
        path.write_bytes(gif())
    elif kind in PICTURES:
        picture().save(path)
    else:
        moving = "" if gif is None else ".gif, "
        raise ValueError(f"{path}: give a name that ends in .html, {moving}{', '.join(PICTURES)}")
    return path


def base_of(image: Photograph) -> Image.Image:
    """The photograph at the size of the page, at most 720 pixels; the pictures of choices have its size."""
    shown = shown_size(photograph(image))
    shown.thumbnail((720, 720), Image.Resampling.LANCZOS)
    return shown


def choice_page(
    base: Image.Image, choices: Sequence[Choice], *, title: str, how: str, caption: str = "", opens: int = 0
) -> str:
    """Writes one self-contained HTML page that opens on choice number `opens`; `how` says what there is to choose.

    Raises ValueError where there is no such choice.
    """
    if not 0 <= opens < len(choices):
        raise ValueError(f"a page of {len(choices)} choices cannot open on number {opens}")
    buttons, labels, rules = [], [], []
    pictures = [f'<img src="{data_uri(base)}" alt="the photograph">']
    for number, choice in enumerate(choices):
        name = html.escape(choice.name)
        checked = " checked" if number == opens else ""
        buttons.append(f'<input type="radio" name="choice" id="c{number}" aria-label="{name}"{checked}>')
        labels.append(f'<label for="c{number}">{_swatch(choice)}{name}{_small(choice)}</label>')
        label = f"~.choices label:nth-child({number + 1})"
        chosen = f"#c{number}:checked{label},#c{number}:focus-visible{label}"
        rules.append(f"{chosen}{{border-color:var(--hot);color:var(--hot)}}")
        if choice.picture is not None:
            pictures.append(f'<img src="{data_uri(choice.picture)}" alt="{html.escape(choice.alt or choice.name)}">')
            place = f"#c{number}:checked~.stage img:nth-child({len(pictures)})"
            rules.append(f"{place}{{visibility:visible;opacity:1}}")
    told = html.escape(title)
    below = "".join(f"<p>{html.escape(line)}</p>" for line in (how, caption, SMALL_PRINT) if line)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="generator" content="sightline">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">"
        f"<title>{told}</title><style>{_STYLE}{''.join(rules)}</style></head>\n<body><main><h1>{told}</h1>\n"
        f'{"".join(buttons)}\n<div class="stage">{"".join(pictures)}</div>\n'
        f'<div class="choices">{"".join(labels)}</div>\n'
        f"{below}</main></body></html>\n"
    )


def _swatch(choice: Choice) -> str:
    if choice.colour is None:
        return ""
    return f'<i style="background:#{bytes(int(value) for value in choice.colour).hex()}"></i>'


def _small(choice: Choice) -> str:
    return f"<small>{html.escape(choice.note)}</small>" if choice.note else ""
