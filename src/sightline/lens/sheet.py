"""The paper that a picture stands on: title, caption, colour bar with its numbers, and the small print."""

from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sightline.lens.paint import SHORTEST, Number, colour_table

PAPER, INK, MUTED = (252, 251, 248), (28, 26, 23), (112, 106, 98)
SMALL_PRINT = "Attention shows where information was read, not what caused the answer."


def spoken(name: str) -> str:
    """A class's name as a person reads it: golden_retriever is a golden retriever."""
    return name.replace("_", " ")


@lru_cache(maxsize=64)
def font_of(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The DejaVu font that ships inside matplotlib, in pixels of height: the same letters on every machine."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


@lru_cache(maxsize=2)
def _letters(path: str) -> frozenset[int]:
    """The characters that a font draws, by number."""
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(path).get_charmap())


def drawable(text: str, font: ImageFont.FreeTypeFont | None = None) -> str:
    """The text with each character that the font lacks written as its number, U+4E2D, so that no empty box is drawn."""
    if text.isascii():
        return text
    known = _letters(str((font or font_of(12)).path))
    parts = [letter if ord(letter) in known or letter.isspace() else f" U+{ord(letter):04X} " for letter in text]
    return text if len("".join(parts)) == len(text) else " ".join("".join(parts).split())


def wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Lines no wider than `width`, as `drawable`; a single word that is wider is cut with an ellipsis."""
    lines: list[str] = []
    for word in drawable(text, font).split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(fitted(word, font, width))
    return lines


def fitted(text: str, font: ImageFont.FreeTypeFont, width: Number) -> str:
    """The text, as `drawable`, cut to a width in pixels, with an ellipsis where something was cut."""
    text = drawable(text, font)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def sheet(
    body: Image.Image, title: str, caption: str, key: Image.Image | None = None, *, note: str = ""
) -> Image.Image:
    """The body on paper, its title and caption above, its key, the small print and a note to it below."""
    margin = 20
    width = max(body.width, key.width if key else 0, SHORTEST - 2 * margin)
    size = int(np.clip(width / 40, 13, 19))
    above = [(line, font_of(size + 3, True), INK) for line in wrapped(title, font_of(size + 3, True), width)]
    above += [(line, font_of(size - 1), MUTED) for line in wrapped(caption, font_of(size - 1), width)]
    below = [(line, font_of(size - 3), MUTED) for line in wrapped(f"{SMALL_PRINT} {note}", font_of(size - 3), width)]
    heights = [round(font.size * 1.45) for _, font, _ in above + below]
    middle = body.height + (key.height + 12 if key else 0) + 12
    gap = 10 if above else 0
    paper = Image.new("RGB", (width + 2 * margin, sum(heights) + middle + gap + 2 * margin - 4), PAPER)
    draw, y = ImageDraw.Draw(paper), margin - 4
    for number, (line, font, ink) in enumerate(above + below):
        if number == len(above):
            y += gap
            paper.paste(body, (margin + (width - body.width) // 2, y))
            if key:
                paper.paste(key, (margin + (width - max(body.width, key.width)) // 2, y + body.height + 12))
            y += middle
        draw.text((margin, y), line, font=font, fill=ink)
        y += heights[number]
    return paper


def legend(
    values: np.ndarray, limits: tuple[Number, Number], width: int, colours: str, mass: Number | None
) -> Image.Image:
    """The colour bar with its numbers: multiples of the uniform level and shares, or plain values."""
    size = int(np.clip(width / 44, 11, 16))
    font, (low, high) = font_of(size), limits
    bar = np.repeat(colour_table(colours)[np.linspace(0, 255, width).round().astype(int)][None], size, axis=0)
    shares = values.min() >= 0 and values.max() > 0
    uniform = float(values.mean())
    more = "≥ " if high < values.max() * (1 - 1e-9) else ""
    right = f"{more}{high / uniform:.1f}× uniform ({high / values.sum():.1%} in a cell)" if shares else f"{high:.3g}"
    if values.min() == 0 == values.max():
        right = "zero everywhere"
    notes = [f"The highest cell has {values.max() / uniform:.1f}× uniform."] if more and shares else []
    if mass is not None and shares and values.max() > values.min():
        notes.append(f"Line: the smallest region that holds {mass:.0%} of the map.")
    lines = wrapped(" ".join(notes), font_of(size - 1), width)
    strip = Image.new("RGB", (width, size + round(size * 1.5) * (1 + len(lines)) + 4), PAPER)
    strip.paste(Image.fromarray(bar), (0, 0))
    draw = ImageDraw.Draw(strip)
    draw.text((0, size + 4), f"{low:.3g}", font=font, fill=INK)
    draw.text((width, size + 4), fitted(right, font, width * 0.7), font=font, fill=INK, anchor="ra")
    mark = round(width * (uniform - low) / (high - low))
    if shares and 2 * size < mark < width - font.getlength(right) - 2 * size:
        draw.line((mark, size // 2, mark, size + 4), fill=INK, width=2)
        draw.text((mark, size + 4), "1×", font=font, fill=INK, anchor="ma")
    for number, line in enumerate(lines):
        draw.text((0, size + 6 + round(size * 1.5) * (1 + number)), line, font=font_of(size - 1), fill=MUTED)
    return strip


def badge(picture: Image.Image, text: str) -> None:
    """Writes a small outlined label into the lower right corner of the picture, in place."""
    font = font_of(10)
    place = (picture.width - 4, picture.height - 3)
    ImageDraw.Draw(picture).text(place, text, font=font, fill="white", anchor="rd", stroke_width=2, stroke_fill="black")
