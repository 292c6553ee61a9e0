"""Frames as an endless animation, and as one page with a slider that works offline."""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image


def encode_gif(frames: Sequence[Image.Image], durations: Sequence[int]) -> bytes:
    """Encodes frames, each for so many milliseconds, as an endless animation."""
    packed = io.BytesIO()
    quantised = [frame.quantize(128, dither=Image.Dither.NONE) for frame in frames]
    quantised[0].save(packed, "GIF", save_all=True, append_images=quantised[1:], duration=list(durations), loop=0)
    return packed.getvalue()


def encode_webp(frames: Sequence[Image.Image], durations: Sequence[int]) -> bytes:
    """The same in WebP, in all colours."""
    packed, first = io.BytesIO(), frames[0]
    rest = list(frames[1:])
    first.save(packed, "WEBP", save_all=True, append_images=rest, duration=list(durations), loop=0, quality=80)
    return packed.getvalue()


def slider_page(
    frames: Sequence[Image.Image], alternatives: Sequence[str], *, title: str, caption: str, label: str
) -> str:
    """Writes one self-contained HTML page: play, pause, step with a slider or the arrow keys; no network.

    `alternatives` are the words for each frame, `label` what the slider steps through.
    """
    images = "\n".join(
        f'<img alt="{html.escape(words)}" src="{data_uri(frame)}">'
        for frame, words in zip(frames, alternatives, strict=True)
    )
    parts = {"title": title, "caption": caption, "label": label}
    text = (Path(__file__).parent / "path.html").read_text(encoding="utf-8")
    for name, value in parts.items():
        text = text.replace("{{" + name + "}}", html.escape(value))
    return text.replace("{{last}}", str(max(0, len(frames) - 1))).replace("{{images}}", images)


def data_uri(image: Image.Image) -> str:
    """Writes a picture into an address, as PNG."""
    packed = io.BytesIO()
    image.save(packed, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(packed.getvalue()).decode()
