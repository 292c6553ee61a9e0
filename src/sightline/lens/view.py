"""Pictures of attention maps: overlay, mask, layers x heads grid, strip of words, matrix and side by side.

Each function takes a photograph and maps and returns a PIL image on paper: title, picture, key, and one
line of small print that says what a map shows and what it does not.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from sightline.lens.paint import (
    Array,
    Number,
    Photograph,
    as_map,
    blend,
    colour_table,
    dimmed,
    enlarge,
    heat_range,
    outline,
    photograph,
    relative_to_uniform,
    shown_size,
    tile,
    top_mass,
)
from sightline.lens.sheet import INK, MUTED, PAPER, badge, fitted, font_of, legend, sheet, wrapped

WIDEST = 2000  # pixels of matrices side by side that carry words
LABEL = 140  # pixels below a picture, at least, for its label
Maps = np.ndarray | Tensor | Sequence[Array]


def overlay(
    image: Photograph,
    heat: Array,
    *,
    title: str = "",
    caption: str = "",
    alpha: Number = 0.8,
    colours: str = "inferno",
    smooth: bool = True,
    limits: tuple[Number, Number] | None = None,
    mass: Number | None = 0.6,
    note: str = "",
) -> Image.Image:
    """An attention map (h, w) laid on its photograph, with a colour bar in multiples of the uniform level.

    The photograph keeps its size and aspect, within 384 to 1024 pixels on the long side.  `limits` are the
    values of the coldest and hottest colour (default `paint.heat_range`), `mass` the share of the map that the
    drawn line encloses (None: no line), `smooth` cubic or square cells, `note` words behind the small print.
    Raises ValueError for NaN and wrong shapes.
    """
    values, picture = as_map(heat), shown_size(photograph(image))
    limits = limits or heat_range(values)
    body = blend(picture, values, alpha=alpha, colours=colours, smooth=smooth, limits=limits, mass=mass)
    key = legend(values, limits, max(body.width, 320), colours, mass)
    return sheet(body, title, caption, key, note=note)


def threshold_view(
    image: Photograph, heat: Array, *, mass: Number = 0.6, title: str = "", caption: str = ""
) -> Image.Image:
    """The photograph in full colour where the fewest cells hold `mass` of the map, dimmed elsewhere.

    The mask is DINO's (`paint.top_mass`, nearest cells); its outline is drawn.  The caption, where none is
    given, compares mass and area.  Raises ValueError for negative cells, NaN and a mass outside 0..1.
    """
    values, picture = as_map(heat), shown_size(photograph(image))
    cells = top_mass(values, mass)
    held = values[cells].sum() / values.sum() if cells.any() else 0.0
    words = f"The outlined cells hold {held:.0%} of the map on {cells.mean():.0%} of the picture."
    return sheet(lit(picture, cells), title, caption or words)


def lit(image: Photograph, cells: np.ndarray) -> Image.Image:
    """The photograph, at its size, in full colour on some cells (h, w), dimmed elsewhere, with a line between."""
    picture = photograph(image)
    region = enlarge(cells.astype(np.float32), picture.size, smooth=False) > 0.5
    dark = Image.fromarray((dimmed(picture) * 0.75 * 255).round().astype(np.uint8))
    body = Image.composite(picture, dark, Image.fromarray(region))
    outline(body, region, (255, 214, 64))
    return body


def masks(
    image: Photograph,
    cells: Maps,
    heat: Array,
    *,
    labels: Sequence[str] = (),
    title: str = "",
    caption: str = "",
    columns: int = 4,
    note: str = "",
) -> Image.Image:
    """The heat of all heads, then the photograph lit where each head's cells are (heads, h, w): DINO's figure.

    `labels` are words below each head's picture, `note` words behind the small print.  Raises ValueError for no
    heads, or for another number of labels.
    """
    kept = [as_map(np.asarray(one, dtype=np.float64)) > 0 for one in cells]
    labels = labels or [f"head {number}" for number in range(len(kept))]
    if not kept or len(labels) != len(kept):
        raise ValueError(f"masks need at least one head and a label for each: {len(kept)} heads, {len(labels)} labels")
    columns = min(columns, len(kept) + 1)
    picture = photograph(image)
    scale = 300 / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    small = picture.resize(size, Image.Resampling.LANCZOS)
    panels = [blend(small, heat, mass=None), *(lit(small, one) for one in kept)]
    gap, font = 10, font_of(15)
    width = max(size[0], LABEL)
    across, down = width + gap, size[1] + 30
    body = Image.new("RGB", (columns * across - gap, -(-len(panels) // columns) * down), PAPER)
    draw = ImageDraw.Draw(body)
    for number, (panel, label) in enumerate(zip(panels, ["all heads", *labels], strict=True)):
        left, top = number % columns * across, number // columns * down
        body.paste(panel, (left + (width - size[0]) // 2, top))
        middle = (left + width // 2, top + size[1] + 5)
        draw.text(middle, fitted(label, font, width), font=font, fill=INK, anchor="ma")
    return sheet(body, title, caption, note=note)


def _grid(maps: Maps) -> list[list[np.ndarray]]:
    """The maps as nested lists, each in multiples of its uniform level."""
    rows = [[relative_to_uniform(as_map(cell)) for cell in row] for row in maps]
    if not rows or not all(rows):
        raise ValueError("a montage needs maps of shape (rows, columns, h, w), or a list of lists of (h, w) maps")
    return rows


def montage(
    image: Photograph | None,
    maps: Maps,
    *,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    title: str = "",
    caption: str = "",
    shared: bool = False,
    colours: str = "inferno",
) -> Image.Image:
    """Small multiples of maps (rows, columns, h, w), as layers x heads; rows may differ in length.

    Each map has its own scale with its highest multiple of uniform written in it, or all share one scale (in
    multiples of uniform) with `shared`.  Maps are laid on the image, or drawn plain where it is None.
    """
    grid = _grid(maps)
    across = max(len(row) for row in grid)
    for name, labels, count in (("row", rows, len(grid)), ("column", columns, across)):
        if labels and len(labels) != count:
            raise ValueError(f"{len(labels)} {name} labels were given for {count} {name}s of maps")
    rows = rows or [f"layer {i}" for i in range(len(grid))]
    columns = columns or [f"head {i}" for i in range(across)]
    picture = photograph(image) if image is not None else None
    size = _cell_size(1200 / across, picture.size if picture else grid[0][0].shape[::-1])
    base = dimmed(picture.resize(size, Image.Resampling.LANCZOS)) if picture else None
    tops = max(heat_range(values)[1] for row in grid for values in row)
    tiles = []
    for row in grid:
        limits = [(0.0, tops) if shared else heat_range(values) for values in row]
        tiles.append([tile(base, v, size, at, colours) for v, at in zip(row, limits, strict=True)])
        for values, cell in zip(row, tiles[-1], strict=True):
            if not shared and min(size) >= 48:
                badge(cell, f"{values.max():.1f}×" if values.min() >= 0 else f"{values.max():.2g}")
    scale = f"One scale, up to {tops:.1f}× uniform." if shared else "Each on its own scale; × is times uniform."
    return sheet(_laid_out(tiles, rows, columns, size), title, caption or scale)


def _cell_size(cell: Number, shape: tuple[int, ...]) -> tuple[int, int]:
    """Width and height of a small picture whose long side is `cell`, within 56 to 220 pixels."""
    wide, high = shape
    side = float(np.clip(cell, 56, 220))
    return max(8, round(side * min(1, wide / high))), max(8, round(side * min(1, high / wide)))


def _laid_out(
    tiles: list[list[Image.Image]], rows: Sequence[str], columns: Sequence[str], size: tuple[int, int]
) -> Image.Image:
    font, gap = font_of(int(np.clip(max(size) / 8, 10, 15))), 4
    left, top = round(max(font.getlength(label) for label in rows)) + 10, round(font.size * 1.6)
    across, down = size[0] + gap, size[1] + gap
    body = Image.new("RGB", (left + len(columns) * across - gap, top + len(rows) * down - gap), PAPER)
    draw = ImageDraw.Draw(body)
    for x, label in enumerate(columns):
        middle = left + x * across + size[0] // 2
        draw.text((middle, 0), fitted(label, font, size[0]), font=font, fill=MUTED, anchor="ma")
    for y, row in enumerate(tiles):
        draw.text((left - 8, top + y * down + size[1] // 2), rows[y], font=font, fill=INK, anchor="rm")
        for x, cell in enumerate(row):
            body.paste(cell, (left + x * across, top + y * down))
    return body


def strip(
    image: Photograph | Sequence[Photograph],
    words: Sequence[str],
    maps: Maps,
    *,
    scores: Sequence[Number] | np.ndarray | None = None,
    columns: int = 6,
    title: str = "",
    caption: str = "",
    colours: str = "inferno",
    shared: bool = False,
    plain: str = "",
) -> Image.Image:
    """One small overlay for each word, the word beneath it and its score (a probability, say) where given.

    `maps` is (words, h, w); `image` is one photograph, or one for each word (frames, glimpses).  `shared` puts
    all maps on one scale in multiples of uniform.  With `plain` the first photograph itself comes first,
    undimmed, these words beneath.  Raises ValueError where words and maps differ in number.
    """
    cells = [relative_to_uniform(as_map(values)) for values in maps]
    pictures = list(image) if isinstance(image, Sequence) else [image] * len(cells)
    counts = {"maps": len(cells), "words": len(words), "photographs": len(pictures)}
    counts |= {"scores": len(scores)} if scores is not None else {}
    if len(set(counts.values())) > 1 or not cells:
        given = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise ValueError(f"a strip needs one of each for every word, and at least one word: {given} were given")
    tops = max(heat_range(values)[1] for values in cells)
    ahead = 1 if plain else 0
    columns = max(1, min(columns, len(words) + ahead))
    cell, gap = int(np.clip(1080 // columns, 120, 220)), 10
    shown = [photograph(picture) for picture in pictures]
    sizes = [_cell_size(cell, picture.size) for picture in shown]
    tall = max(size[1] for size in sizes)
    font, small = font_of(max(13, cell // 13), True), font_of(max(11, cell // 17))
    step = tall + round(font.size * 1.7) + (round(small.size * 1.5) if scores is not None else 0) + gap
    body = Image.new("RGB", (columns * (cell + gap) - gap, -(-(len(words) + ahead) // columns) * step - gap), PAPER)
    draw = ImageDraw.Draw(body)
    if plain:
        body.paste(shown[0].resize(sizes[0], Image.Resampling.LANCZOS), ((cell - sizes[0][0]) // 2, 0))
        draw.text((cell // 2, tall + 4), fitted(plain, font, cell), font=font, fill=INK, anchor="ma")
    for number, (values, size) in enumerate(zip(cells, sizes, strict=True)):
        place = number + ahead
        x, y = place % columns * (cell + gap), place // columns * step
        base = dimmed(shown[number].resize(size, Image.Resampling.LANCZOS))
        limits = (0.0, tops) if shared else heat_range(values)
        body.paste(tile(base, values, size, limits, colours), (x + (cell - size[0]) // 2, y))
        middle, y = x + cell // 2, y + tall + 4
        draw.text((middle, y), fitted(words[number], font, cell), font=font, fill=INK, anchor="ma")
        if scores is not None:
            under = (middle, y + round(font.size * 1.4))
            draw.text(under, f"{scores[number]:.2f}", font=small, fill=MUTED, anchor="ma")
    return sheet(body, title, caption)


def matrix(
    weights: Array,
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    *,
    title: str = "",
    caption: str = "",
    colours: str = "viridis",
) -> Image.Image:
    """An attention or alignment matrix (rows, columns) with tokens as labels: rows read from columns.

    Cells carry their percentage where the matrix is small enough to read it.  Raises ValueError where labels
    and matrix disagree.
    """
    values = as_map(weights)
    if values.shape != (len(row_labels), len(column_labels)):
        raise ValueError(
            f"a matrix of {values.shape[0]} x {values.shape[1]} needs as many labels, "
            f"not {len(row_labels)} x {len(column_labels)}"
        )
    cell = int(np.clip(900 / max(values.shape), 12, 44))
    font, number = font_of(int(np.clip(cell * 0.5, 9, 15))), font_of(max(9, round(cell * 0.28)))
    rows, columns = ([fitted(label, font, 180) for label in labels] for labels in (row_labels, column_labels))
    left, top = (round(max(font.getlength(label) for label in labels)) + 8 for labels in (rows, columns))
    low, high = min(0.0, float(values.min())), float(values.max())
    level = np.clip((values - low) / max(high - low, 1e-30), 0, 1)
    table = colour_table(colours)[(level * 255).round().astype(int)]
    plain = Image.fromarray(np.ascontiguousarray(table.repeat(cell, axis=0).repeat(cell, axis=1)))
    body = Image.new("RGB", (left + plain.width, top + plain.height), PAPER)
    body.paste(plain, (left, top))
    draw = ImageDraw.Draw(body)
    for y, label in enumerate(rows):
        draw.text((left - 6, top + y * cell + cell // 2), label, font=font, fill=INK, anchor="rm")
        for x in range(len(columns) if cell >= 30 else 0):
            ink = "black" if table[y, x] @ np.array([0.299, 0.587, 0.114]) > 140 else "white"
            middle = (left + x * cell + cell // 2, top + y * cell + cell // 2)
            draw.text(middle, f"{values[y, x] * 100:.0f}", font=number, fill=ink, anchor="mm")
    for x, label in enumerate(columns):
        _write_upwards(body, label, (left + x * cell + cell // 2, top - 6), top - 8, font)
    unit = "Numbers are per cent. " if cell >= 30 else ""
    return sheet(body, title, caption or f"{unit}Each row is one query; brightest: {high:.3g}.")


def _write_upwards(
    body: Image.Image, label: str, place: tuple[int, int], length: int, font: ImageFont.FreeTypeFont
) -> None:
    """Writes a label of at most `length` pixels from below, its middle and foot at `place`, in place."""
    turned = Image.new("RGB", (length, round(font.size) + 6), PAPER)
    ImageDraw.Draw(turned).text((0, 0), label, font=font, fill=INK)
    turned = turned.rotate(90, expand=True)
    body.paste(turned, (place[0] - turned.width // 2 + 1, place[1] - turned.height))


def matrices(
    weights: Array,
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    *,
    title: str = "",
    caption: str = "",
    colours: str = "viridis",
) -> Image.Image:
    """The matrix of each layer and head, from weights (layers, heads, rows, columns), with words at its sides.

    Row words stand left of each layer's first matrix, column words above each of its matrices; where the words are so
    many, or the heads, that they could not be read, they are left out (`montage`).  Each matrix has its own scale.
    Raises ValueError where labels and weights disagree.
    """
    values = np.asarray(weights, dtype=np.float64)
    if values.ndim != 4 or values.shape[2:] != (len(row_labels), len(column_labels)):
        raise ValueError(
            f"matrices of {len(row_labels)} x {len(column_labels)} words need weights (layers, heads, rows, columns), "
            f"not {values.shape}"
        )
    layers, heads, down, across = values.shape
    cell = int(np.clip(min(1200 / heads, 220) / max(down, across), 12, 26))
    if heads * across * cell > WIDEST:
        return montage(None, values, title=title, caption=caption, colours=colours)
    font, gap = font_of(int(np.clip(cell - 2, 10, 13))), 8
    rows, columns = ([fitted(label, font, 120) for label in labels] for labels in (row_labels, column_labels))
    beside, above = (round(max(font.getlength(label) for label in labels)) + 8 for labels in (rows, columns))
    named = [f"layer {layer}" for layer in range(layers)]
    left, top = round(max(font.getlength(name) for name in named)) + 14 + beside, round(font.size * 1.8)
    width, height = across * cell, down * cell
    body = Image.new("RGB", (left + heads * (width + gap) - gap, top + layers * (above + height + gap) - gap), PAPER)
    draw = ImageDraw.Draw(body)
    for head in range(heads):
        draw.text((left + head * (width + gap) + width // 2, 0), f"head {head}", font=font, fill=MUTED, anchor="ma")
    for layer, name in enumerate(named):
        y = top + layer * (above + height + gap) + above
        draw.text((0, y + height // 2), name, font=font, fill=MUTED, anchor="lm")
        for number, label in enumerate(rows):
            draw.text((left - 6, y + number * cell + cell // 2), label, font=font, fill=INK, anchor="rm")
        for head in range(heads):
            x, one = left + head * (width + gap), relative_to_uniform(values[layer, head])
            panel = tile(None, one, (width, height), heat_range(one), colours)
            if min(panel.size) >= 48:
                badge(panel, f"{one.max():.1f}×")
            body.paste(panel, (x, y))
            for number, label in enumerate(columns):
                _write_upwards(body, label, (x + number * cell + cell // 2, y - 4), above - 4, font)
    return sheet(body, title, caption or "Each on its own scale; × is times uniform.")


def side_by_side(
    pictures: Sequence[Photograph], *, labels: Sequence[str] = (), title: str = "", caption: str = ""
) -> Image.Image:
    """Pictures in one row at one height, with whole labels beneath; none is enlarged beyond the tallest.

    Narrow pictures with labels stand further apart, so that these can be read.  Raises ValueError for no pictures, or
    for another number of labels.
    """
    shown = [photograph(picture) for picture in pictures]
    if not shown or (labels and len(labels) != len(shown)):
        raise ValueError(f"side by side needs at least one picture and a label for each: {len(shown)}, {len(labels)}")
    height = min(max(picture.height for picture in shown), 640)
    shown = [p.resize((max(1, round(p.width * height / p.height)), height), Image.Resampling.LANCZOS) for p in shown]
    gap, font = 12, font_of(15)
    widths = [max(picture.width, LABEL if labels else 0) for picture in shown]
    lines = [wrapped(label, font, width) for label, width in zip(labels, widths, strict=False)]
    foot = 6 + 20 * max(map(len, lines), default=0) if labels else 0
    body = Image.new("RGB", (sum(widths) + gap * (len(widths) - 1), height + foot), PAPER)
    x = 0
    for number, (picture, width) in enumerate(zip(shown, widths, strict=True)):
        body.paste(picture, (x + (width - picture.width) // 2, 0))
        for line, words in enumerate(lines[number] if labels else ()):
            place = (x + width // 2, height + 8 + 20 * line)
            ImageDraw.Draw(body).text(place, words, font=font, fill=INK, anchor="ma")
        x += width + gap
    return sheet(body, title, caption)
