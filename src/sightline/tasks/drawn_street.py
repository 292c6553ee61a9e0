"""A street that is drawn, not photographed: something to segment where no photograph may be shown."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

_SKY, _ROAD, _PAVEMENT = (196, 214, 235), (92, 92, 98), (150, 146, 142)
_HOUSES = ((120, 78, 62), (158, 132, 104), (104, 92, 88), (142, 98, 74))


def drawn_street(height: int = 360, seed: int = 0) -> Image.Image:
    """Draws a street seen from a car, (4/3 height, height) pixels in RGB: houses, trees, cars, a rider, lamp posts.

    Everything is in perspective towards one point; the same seed draws the same street.
    """
    random, scale = np.random.default_rng(seed), height / 360
    width = round(height * 4 / 3)
    paper = Image.new("RGB", (width, height), _SKY)
    pen = ImageDraw.Draw(paper)
    x, y = width * 0.5, height * 0.47  # the point where all lines meet
    _ground(pen, (x, y), (width, height))
    for depth in np.linspace(0.08, 0.85, 5):  # from far to near
        for side in (-1, 1):
            _house(pen, (x, y), (width, height), side, float(depth), random)
    for depth in (0.16, 0.34, 0.62):
        _tree(pen, x + 0.74 * width * depth, y + 0.14 * height * depth, height * depth, random)
        _post(pen, x - 0.63 * width * depth, y + 0.2 * height * depth, height * depth)
    _car(pen, x + 0.08 * width, y + 0.13 * height, 62 * scale, (158, 34, 32))
    _car(pen, x - 0.07 * width, y + 0.08 * height, 40 * scale, (40, 52, 92))
    _rider(pen, x - 0.13 * width, y + 0.24 * height, 70 * scale)
    pixels = np.asarray(paper.filter(ImageFilter.GaussianBlur(0.8 * scale)), dtype=np.float32)
    grain = random.normal(0, 5, pixels.shape) + random.normal(0, 5, (height, width, 1))
    shade = np.linspace(1.04, 0.9, width)[None, :, None]
    return Image.fromarray((pixels * shade + grain).clip(0, 255).astype(np.uint8))


def _ground(pen: ImageDraw.ImageDraw, point: tuple[float, float], size: tuple[int, int]) -> None:
    (x, y), (width, height) = point, size
    pen.rectangle((0, y, width, height), fill=_PAVEMENT)
    pen.polygon([(x, y), (width * 0.93, height), (width * 0.05, height)], fill=_ROAD)
    for start in (0.04, 0.12, 0.26, 0.5, 0.8):  # dashes in the middle
        end = start * 1.35
        near = [(x + sign * 4 * share * 2, y + (height - y) * share) for share, sign in ((end, -1), (end, 1))]
        far = [(x + sign * 4 * share * 2, y + (height - y) * share) for share, sign in ((start, 1), (start, -1))]
        pen.polygon(near + far, fill=(214, 214, 206))
    for edge in (0.93, 0.05):  # kerbs
        pen.line([(x, y), (width * edge, height)], fill=(196, 192, 186), width=max(1, width // 160))


def _house(
    pen: ImageDraw.ImageDraw,
    point: tuple[float, float],
    size: tuple[int, int],
    side: int,
    depth: float,
    random: np.random.Generator,
) -> None:
    (x, y), (width, height) = point, size
    left, right = (x + side * width * 0.62 * share for share in (depth, depth * 1.7 + 0.05))
    tall = height * (0.5 + 0.25 * random.random())
    tops = [y - tall * share for share in (depth, depth * 1.7 + 0.05)]
    feet = [y + height * 0.17 * share for share in (depth, depth * 1.7 + 0.05)]
    colour = _HOUSES[int(random.integers(len(_HOUSES)))]
    pen.polygon([(left, tops[0]), (right, tops[1]), (right, feet[1]), (left, feet[0])], fill=colour)
    dark = tuple(value // 2 for value in colour)
    for floor in (0.15, 0.4, 0.65):
        for column in (0.15, 0.42, 0.69):
            corners = []
            for across, down in (
                (column, floor),
                (column + 0.16, floor),
                (column + 0.16, floor + 0.14),
                (column, floor + 0.14),
            ):
                top, foot = (pair[0] + (pair[1] - pair[0]) * across for pair in (tops, feet))
                corners.append((left + (right - left) * across, top + (foot - top) * down))
            pen.polygon(corners, fill=dark)


def _tree(pen: ImageDraw.ImageDraw, x: float, foot: float, size: float, random: np.random.Generator) -> None:
    pen.rectangle((x - size * 0.02, foot - size * 0.35, x + size * 0.02, foot), fill=(74, 56, 42))
    for _ in range(60):
        angle, far, around = random.uniform(0, 2 * np.pi), random.random() ** 0.5, random.uniform(0.03, 0.07) * size
        cx, cy = x + size * 0.22 * far * np.cos(angle), foot - size * 0.5 + size * 0.24 * far * np.sin(angle)
        green = int(random.integers(60, 110))
        pen.ellipse((cx - around, cy - around, cx + around, cy + around), fill=(green - 30, green, green // 2))


def _post(pen: ImageDraw.ImageDraw, x: float, foot: float, size: float) -> None:
    wide = max(1, round(size * 0.012))
    pen.line([(x, foot), (x, foot - size * 0.8), (x + size * 0.12, foot - size * 0.82)], fill=(64, 68, 66), width=wide)


def _car(pen: ImageDraw.ImageDraw, x: float, foot: float, size: float, colour: tuple[int, int, int]) -> None:
    pen.ellipse((x - size * 0.55, foot - size * 0.1, x + size * 0.55, foot + size * 0.06), fill=(58, 58, 62))
    pen.rounded_rectangle((x - size / 2, foot - size * 0.42, x + size / 2, foot), size * 0.08, fill=colour)
    roof = [(-0.4, -0.4), (-0.3, -0.72), (0.3, -0.72), (0.4, -0.4)]
    pen.polygon([(x + size * a, foot + size * b) for a, b in roof], fill=colour)
    glass = [(-0.34, -0.42), (-0.26, -0.67), (0.26, -0.67), (0.34, -0.42)]
    pen.polygon([(x + size * a, foot + size * b) for a, b in glass], fill=(58, 70, 82))
    for at in (-0.4, 0.4):
        pen.rectangle(
            (x + size * (at - 0.08), foot - size * 0.06, x + size * (at + 0.08), foot + size * 0.06), fill=(24, 24, 26)
        )
        pen.rectangle(
            (x + size * (at - 0.07), foot - size * 0.32, x + size * (at + 0.07), foot - size * 0.24), fill=(206, 60, 48)
        )


def _rider(pen: ImageDraw.ImageDraw, x: float, foot: float, size: float) -> None:
    pen.ellipse(
        (x - size * 0.07, foot - size * 0.45, x + size * 0.07, foot),
        outline=(28, 28, 30),
        width=max(1, round(size * 0.05)),
    )
    pen.line(
        [(x - size * 0.05, foot - size * 0.5), (x - size * 0.07, foot - size * 0.2)],
        fill=(34, 36, 52),
        width=max(2, round(size * 0.1)),
    )
    pen.rounded_rectangle(
        (x - size * 0.14, foot - size * 0.85, x + size * 0.14, foot - size * 0.45), size * 0.06, fill=(42, 44, 60)
    )
    pen.ellipse((x - size * 0.08, foot - size * 1.02, x + size * 0.08, foot - size * 0.84), fill=(196, 158, 132))
