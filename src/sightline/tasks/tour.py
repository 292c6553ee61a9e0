"""A tour: every bundled system once, each on an input of its kind, with its answer and where it looked."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from PIL import Image, ImageDraw, ImageFilter

from sightline.checkpoints.bundled import bundled_card, bundled_names
from sightline.data.photographs import open_photograph, sample_photographs

TOLD = "What color is the cube?"
POINTED = "which object is the red cylinder?"
SENTENCE = "Ein kleines Mädchen in einem roten Kleid spielt mit einem braunen Hund am Strand."


@dataclass(frozen=True)
class Stop:
    """One system's turn: what it was `given` (a picture, a text, or both), its `answer`, and how long it took.

    `result` is what the task gave: `result.save(path)` writes the evidence as a picture (.png) or a page (.html).
    """

    system: str
    verb: str
    question: str
    picture: Image.Image | None
    text: str
    answer: str
    result: Any
    seconds: float


def tour(names: list[str] | None = None) -> Iterator[Stop]:
    """Visits the bundled systems (all of them, or those named) one after the other, as they are asked for.

    Inputs are the photographs of the package, scenes of the generated world, a sentence and a drawn digit: nothing is
    fetched.  Raises ValueError for a name that is no stop of the tour.
    """
    known = stops()
    unknown = sorted(set(names or ()) - set(known))
    if unknown:
        raise ValueError(f"no stop {', '.join(unknown)} on the tour; there are: {', '.join(known)}")
    for name in known:
        if names is None or name in names:
            yield from _STOPS[name]()


def stops() -> list[str]:
    """Lists the systems that a tour visits: those of the house whose weights this build has."""
    return [name for name in _STOPS if name in bundled_names()]


def left_out() -> dict[str, str]:
    """Tells, for each bundled system that is no stop, what it is for: none of them answers anything by itself."""
    return {name: str(bundled_card(name).get("use", "no verb")) for name in bundled_names() if name not in _STOPS}


def drawn_digit(side: int = 240) -> Image.Image:
    """Draws a three with a thick pen on light paper, (side, side) pixels, grey in RGB."""
    paper = Image.new("L", (side, side), 232)
    pen, width = ImageDraw.Draw(paper), side // 14
    left, right, top, middle, bottom = (round(share * side) for share in (0.3, 0.68, 0.16, 0.47, 0.84))
    pen.arc((left, top, right, middle + width), 195, 90, fill=40, width=width)
    pen.arc((left, middle, right + side // 20, bottom), 270, 165, fill=40, width=width)
    return paper.filter(ImageFilter.GaussianBlur(side / 160)).convert("RGB")


def placed_digit(side: int = 256) -> Image.Image:
    """Lays the drawn three, small and light, on a dimmed photograph of the package, (side, side) pixels in RGB."""
    photograph = open_photograph(sample_photographs()[0]).resize((side * 3 // 2, side))
    dimmed = photograph.crop((side // 4, 0, side * 5 // 4, side)).point(lambda tone: round(0.6 * tone))
    digit = drawn_digit(side * 28 // 64).convert("L").point(lambda tone: max(0, min(255, round((232 - tone) * 1.33))))
    dimmed.paste((250, 235, 200), (round(0.47 * side), round(0.5 * side)), digit)
    return dimmed


def drawn_scene(number: int = 6, side: int = 240) -> Image.Image:
    """Draws one scene of the generated world, held out from training, (side, side) pixels in RGB."""
    from sightline.data.scenes import Scenes

    pixels = Scenes(seed=20, split="val", size=side, count=number + 1).images([number])[0]
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def _timed(system: str, verb: str, question: str, picture: Any, text: str, run: Callable[[], Any]) -> Stop:
    start = time.perf_counter()
    result = run()
    shown = None if picture is None else open_photograph(picture)
    # a look's sentence says more than its name, and its title is a file's
    answer = getattr(result, "sentence", None) or str(result)
    return Stop(system, verb, question, shown, text, answer, result, time.perf_counter() - start)


def _vit() -> Iterator[Stop]:
    from sightline.tasks.look import look

    picture, question = sample_photographs()[-1], "Where does it look, and what does it call it?"
    yield _timed("vit", "look", question, picture, "", partial(look, picture, model="vit"))


def _dino() -> Iterator[Stop]:
    from sightline.tasks.look import look

    picture, question = sample_photographs()[0], "Where does it look, never having been told what there is?"
    yield _timed("dino", "look", question, picture, "", partial(look, picture, model="dino"))


def _ps_vit() -> Iterator[Stop]:
    from sightline.tasks.look import look

    picture = placed_digit()
    asked = "Which digit lies on the photograph, and do its points find it?"
    yield _timed("ps_vit", "look", asked, picture, "", partial(look, picture, model="ps_vit"))


def _segmenter_hybrid() -> Iterator[Stop]:
    from sightline.tasks.drawn_street import drawn_street
    from sightline.tasks.segment import segment

    picture = drawn_street()
    yield _timed("segmenter_hybrid", "segment", "What is where?", picture, "", partial(segment, picture))


def _show_attend_tell() -> Iterator[Stop]:
    from sightline.tasks.caption import caption

    picture = sample_photographs()[0]
    yield _timed("show_attend_tell", "caption", "What does it show?", picture, "", partial(caption, picture))


def _seq2seq() -> Iterator[Stop]:
    yield _translated("seq2seq")


def _transformer() -> Iterator[Stop]:
    yield _translated("transformer")


def _translated(system: str) -> Stop:
    from sightline.tasks.translate import translate

    run = partial(translate, SENTENCE, system=system)
    return _timed(system, "translate", "What is it in English?", None, SENTENCE, run)


def _ram() -> Iterator[Stop]:
    from sightline.tasks.glimpse import glimpse

    picture = drawn_digit()
    yield _timed("ram", "glimpse", "Which digit is it?", picture, "", partial(glimpse, picture))


def _world_captions() -> Iterator[Stop]:
    from sightline.tasks.caption import caption

    picture, ask = drawn_scene(), "What stands there, from left to right?"
    yield _timed("world_captions", "caption", ask, picture, "", partial(caption, picture, system="world_captions"))


def _visual7w() -> Iterator[Stop]:
    from sightline.tasks.ask import ask

    picture = drawn_scene()
    run = partial(ask, picture, TOLD, system="visual7w")
    yield _timed("visual7w", "ask", "What is the answer?", picture, TOLD, run)


def _visual7w_pointing() -> Iterator[Stop]:
    from sightline.tasks.point import point

    picture = drawn_scene()
    run = partial(point, picture, POINTED, system="visual7w_pointing")
    yield _timed("visual7w_pointing", "point", "Which box is meant?", picture, POINTED, run)


_STOPS: dict[str, Callable[[], Iterator[Stop]]] = {
    "seq2seq": _seq2seq,
    "transformer": _transformer,
    "show_attend_tell": _show_attend_tell,
    "world_captions": _world_captions,
    "visual7w": _visual7w,
    "visual7w_pointing": _visual7w_pointing,
    "ram": _ram,
    "ps_vit": _ps_vit,
    "vit": _vit,
    "dino": _dino,
    "segmenter_hybrid": _segmenter_hybrid,
}
