"""Questions about photographs in the field's layouts: DAQUAR, Visual7W (telling and pointing), VQA."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from sys import intern
from typing import Any

import numpy as np

from sightline.data.listed import Pictures, field, lines_of, number_in, read_json, split_of
from sightline.data.photographs import SUFFIXES, open_photograph

SPLITS = ("train", "val", "test", "all")

_RAW = re.compile(r"(.*?)\s*(?:\b(?:in|on|of|at|from)\s+)?(?:(?:the|this)\s+)?\b(image\d+)\s*\?*\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Box:
    """A box in pixels of the photograph as published: left, top, width, height, and what is in it."""

    x: int | float
    y: int | float
    width: int | float
    height: int | float
    name: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a photograph.

    image      file name of the photograph
    text       the question
    answer     the right answer, of VQA the most frequent one; "" where a test set hides it
    answers    every answer that was given (VQA: ten people's), else the one
    kind       what, where, how … (Visual7W), the answer's type (VQA); "" for DAQUAR
    number     the question's id
    choices    the answers to choose from (Visual7W telling), else empty
    boxes      the boxes to choose from (Visual7W pointing), else empty
    right      which of the choices or boxes is right; spread by the question's id, so that always taking one place
               scores no better than chance; -1 where there is nothing to choose
    """

    image: str
    text: str
    answer: str
    answers: tuple[str, ...]
    kind: str = ""
    number: int = 0
    choices: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()
    right: int = -1


class Questions:
    """Questions in one order, `items[i]` or `[i]`, with the photograph of each.

    `path(i)` is the photograph's file, `image(i)` its (H, W, 3) bytes; both raise ValueError in one line where it is
    missing or broken.  Pictures are looked for when asked for, so questions can be read without them.
    """

    def __init__(self, items: list[Question], pictures: Pictures) -> None:
        if not items:
            raise ValueError(f"{pictures.root}: no question in this split")
        self.items = items
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Question:
        return self.items[index]

    def path(self, index: int) -> Path:
        return self.pictures.path(self.items[index].image)

    def image(self, index: int) -> np.ndarray:
        return np.asarray(open_photograph(self.path(index)))


def open_questions(spec: str, split: str = "train") -> Questions:
    """Opens `daquar:FOLDER`, `visual7w:FOLDER or JSON`, `vqa:FOLDER`.

    `split` is train, val (also dev), test or all.  Raises ValueError for an unknown kind, and what the readers raise.
    """
    kind, found, path = spec.partition(":")
    if not found or kind not in KINDS or not path:
        raise ValueError(f"data {spec!r}: expected KIND:PATH with KIND one of {', '.join(KINDS)}, such as vqa:VQA")
    return KINDS[kind](path, split)


def open_daquar(path: str | os.PathLike[str], split: str = "train") -> Questions:
    """Reads DAQUAR (Malinowski & Fritz 2014), JSON or the original text, below the folder `path`.

    JSON: `qa_train.json`, a list of {image_id, question, answer}.  Text: `qa.raw.train.txt` or `qa.37.raw.train.txt`
    (the 37 objects), a line "… in the image3 ?" and a line with the answer; the JSON is taken where both are there.
    The official lists are train and test.  "val" keeps back every tenth photograph of the train list, "train" is the
    rest, "all" the whole train list, "test" the official test list.  Raises ValueError for what is missing or
    malformed, with the number of the line or entry.
    """
    root, split = Path(path).expanduser(), split_of(split, SPLITS)
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; expected qa_train.json or qa.raw.train.txt in it")
    part = "test" if split == "test" else "train"
    names = (f"qa_{part}.json", f"qa.raw.{part}.txt", f"qa.894.raw.{part}.txt", f"qa.37.raw.{part}.txt")
    file = next((root / name for name in names if (root / name).is_file()), None)
    if file is None:
        raise ValueError(f"{root}: none of {', '.join(names)} in it")
    triples = _daquar_json(file) if file.suffix == ".json" else _daquar_text(file)
    pictures = Pictures(root, ("images", "nyu_depth_images", "dataset/images"))
    suffix = next((f.suffix for place in pictures.folders for f in _some_of(place)), ".png")
    kept = dict.fromkeys(image for image, _, _ in triples)
    if split in ("train", "val"):
        kept = dict.fromkeys(image for i, image in enumerate(kept) if (i % 10 == 9) == (split == "val"))
    return Questions(
        [
            Question(image + suffix, question, answer, (answer,), number=number)
            for number, (image, question, answer) in enumerate(triples)
            if image in kept
        ],
        pictures,
    )


def open_visual7w(path: str | os.PathLike[str], split: str = "train") -> Questions:
    """Reads Visual7W (Zhu et al. 2016): `images` of {filename, split, qa_pairs}, telling or pointing.

    A pair has qa_id, question, answer, type and multiple_choices (three wrong ones); in the pointing task these are
    ids of the list `boxes` of {box_id, x, y, width, height, name}.  `path` is the JSON or a folder with one
    `dataset*.json`; photographs `v7w_*.jpg` lie in `images/`.  Raises ValueError for missing files, keys and boxes.
    """
    given, split = Path(path).expanduser(), split_of(split, SPLITS)
    file = given
    if given.is_dir():
        found = sorted(given.glob("dataset*.json"))
        if len(found) != 1:
            told = ", ".join(f.name for f in found) or "none"
            raise ValueError(f"{given}: expected one dataset*.json of Visual7W in it, found {told}; name the file")
        file = found[0]
    content = read_json(file, "images")
    boxes = _boxes(file, content["boxes"]) if "boxes" in content else None
    items: list[Question] = []
    for number, entry in enumerate(content["images"]):
        where = f"{file}: images[{number}]"
        if split != "all" and field(entry, "split", where) != split:
            continue
        name = field(entry, "filename", where)
        for place, pair in enumerate(field(entry, "qa_pairs", where)):
            items.append(_visual7w_pair(pair, name, boxes, f"{where}: qa_pairs[{place}]"))
    return Questions(items, Pictures(file.parent, ("images", "visual7w_images")))


def open_vqa(path: str | os.PathLike[str], split: str = "train") -> Questions:
    """Reads VQA v2 and v1 (Goyal et al. 2017, Antol et al. 2015) below the folder `path`.

    Questions `*OpenEnded*{split}*questions.json`, answers `*{split}*annotations.json` (a test set has none: its
    answers are empty); photographs `COCO_train2014_000000000009.jpg` in `train2014/` or `images/`.  `kind` is the
    answer's type: yes/no, number, other.  Raises ValueError for missing files and keys, and questions without answers.
    """
    root, split = Path(path).expanduser(), split_of(split, ("train", "val", "test"))
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; expected VQA's questions and annotations in it")
    asked = _vqa_file(root, f"*OpenEnded*{split}*questions.json")
    answered = None if split == "test" else _vqa_file(root, f"*{split}*annotations.json")
    told: dict[int, tuple[str, tuple[str, ...], str]] = {}
    if answered is not None:
        for number, entry in enumerate(read_json(answered, "annotations")["annotations"]):
            told[int(number_in(entry, "question_id", f"{answered}: annotations[{number}]"))] = _vqa_answers(
                entry, f"{answered}: annotations[{number}]"
            )
    content = read_json(asked, "questions")
    subtype = content.get("data_subtype") or next(iter(re.findall(rf"{split}\d{{4}}", asked.name)), f"{split}2014")
    subtype = subtype.replace("test-dev", "test")
    items: list[Question] = []
    for number, entry in enumerate(content["questions"]):
        where = f"{asked}: questions[{number}]"
        key = int(number_in(entry, "question_id", where))
        if answered is not None and key not in told:
            raise ValueError(f"{where}: question {key} has no answers in {answered.name}")
        answer, answers, kind = told.get(key, ("", (), ""))
        image = f"COCO_{subtype}_{int(number_in(entry, 'image_id', where)):012d}.jpg"
        items.append(Question(intern(image), field(entry, "question", where), answer, answers, kind, key))
    return Questions(items, Pictures(root, (subtype, f"images/{subtype}", "images", f"Images/mscoco/{subtype}")))


KINDS: dict[str, Callable[[str, str], Questions]] = {
    "daquar": open_daquar,
    "visual7w": open_visual7w,
    "vqa": open_vqa,
}


def _some_of(folder: Path) -> list[Path]:
    return sorted(f for f in folder.glob("image*") if f.suffix.lower() in SUFFIXES)[:1]


def _daquar_json(file: Path) -> list[tuple[str, str, str]]:
    content = read_json(file)
    if not isinstance(content, list):
        raise ValueError(f"{file}: expected a list of questions, found {type(content).__name__}")
    keys = ("image_id", "question", "answer")
    found = []
    for number, entry in enumerate(content):
        image, question, answer = (str(field(entry, key, f"{file}: [{number}]")).strip() for key in keys)
        found.append((intern(image), question, answer))
    return found


def _daquar_text(file: Path) -> list[tuple[str, str, str]]:
    lines = list(lines_of(file))
    found = []
    for (number, question), (_, answer) in zip(lines[::2], lines[1::2], strict=False):
        match = _RAW.fullmatch(question)
        if match is None:
            raise ValueError(f"{file}: line {number} is not a question that ends in 'in the imageN ?': {question!r}")
        found.append((intern(match[2]), match[1], answer.strip()))
    if len(lines) % 2:
        raise ValueError(f"{file}: line {lines[-1][0]} is a question without an answer below it")
    return found


def _boxes(file: Path, entries: list[Any]) -> dict[int, Box]:
    found = {}
    for number, entry in enumerate(entries):
        where = f"{file}: boxes[{number}]"
        x, y, width, height = (number_in(entry, key, where) for key in ("x", "y", "width", "height"))
        found[int(number_in(entry, "box_id", where))] = Box(x, y, width, height, str(entry.get("name", "")))
    return found


def _visual7w_pair(pair: Any, image: str, boxes: dict[int, Box] | None, where: str) -> Question:
    number = int(number_in(pair, "qa_id", where))
    answer = field(pair, "answer", where)
    wrong = list(pair.get("multiple_choices", ()))
    right = number % (len(wrong) + 1)
    offered = [*wrong[:right], answer, *wrong[right:]]
    text, kind = str(field(pair, "question", where)), intern(str(pair.get("type", "")))
    if boxes is None:
        told = tuple(str(one) for one in offered)
        return Question(image, text, str(answer), (str(answer),), kind, number, choices=told, right=right)
    missing = [one for one in offered if one not in boxes]
    if missing:
        raise ValueError(f"{where} names box {missing[0]}, which is not in the list of boxes")
    drawn = tuple(boxes[one] for one in offered)
    name = boxes[answer].name
    return Question(image, text, name, (name,), kind, number, boxes=drawn, right=right)


def _vqa_file(root: Path, pattern: str) -> Path:
    found = [f for place in ("", "Questions/", "Annotations/") for f in sorted(root.glob(place + pattern))]
    if not found:
        raise ValueError(f"{root}: no {pattern} in it or in Questions/ and Annotations/")
    if len(found) > 1:
        raise ValueError(f"{root}: several files fit {pattern} ({', '.join(f.name for f in found)}); keep one of them")
    return found[0]


def _vqa_answers(entry: Any, where: str) -> tuple[str, tuple[str, ...], str]:
    given = tuple(intern(str(field(one, "answer", where))) for one in field(entry, "answers", where))
    frequent = intern(str(field(entry, "multiple_choice_answer", where)))
    return frequent, given, intern(str(entry.get("answer_type", "")))
