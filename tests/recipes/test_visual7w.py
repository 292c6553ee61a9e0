"""Visual7W's recipes: what they read, what their measures count (by hand), tiny runs that learn, and their controls."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import sightline
from sightline.data.asked import Asked
from sightline.recipes import answers, visual7w, visual7w_pointing
from sightline.recipes.marks import ready
from sightline.recipes.train import evaluate, train
from sightline.tasks.point import windows

QUICK = {"tiny": True, "batch": 4, "save_every": 1000}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("visual7w")


@pytest.fixture(autouse=True)
def small(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(home / "cache"))
    monkeypatch.setattr(answers, "HELD_SCENES", 24)


def measured(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text())["measured"]


# -- what is read ------------------------------------------------------------------------------------------------------


def test_scenes_come_with_questions_choices_and_boxes() -> None:
    for open_data, more in ((answers.open_data, "choices"), (visual7w_pointing.open_data, "boxes")):
        train_part, held = open_data("scenes:8", "train"), open_data("scenes:8", "val")
        answers.agree(train_part, held)
        assert held.vocabulary is train_part.vocabulary
        batch = train_part.batch(np.array([0, 1]))
        assert batch["pictures"].shape == (2, 3, 64, 64)
        assert batch[more].shape[2] == 4
        assert max(item.picture for item in held.items) == 23
    with pytest.raises(ValueError, match="expected scenes:N"):
        answers.open_data("scenes:few", "train")
    with pytest.raises(ValueError, match="pointing is learned from scenes:N"):
        visual7w_pointing.open_data("daquar:rooms", "train")


def test_random_windows_are_wrong_and_the_choices_stay() -> None:
    torch.manual_seed(0)
    boxes = torch.tensor([[0.1, 0.1, 0.4, 0.4], [0.5, 0.5, 0.8, 0.9], [0.0, 0.6, 0.3, 0.9], [0.6, 0.0, 0.9, 0.3]])
    right = torch.tensor([[1, 3], [0, -1]])
    wide = visual7w_pointing.with_windows(boxes.expand(2, 2, 4, 4), right, 200)
    assert wide.shape == (2, 2, 204, 4)
    assert torch.equal(wide[:, :, :4], boxes.expand(2, 2, 4, 4))
    for place, number in ((0, 0), (0, 1), (1, 0)):
        truth = boxes[right[place, number]].tolist()
        shared = [iou(window, truth) for window in wide[place, number, 4:].tolist()]
        assert max(shared) <= 0.3 + 1e-6
        assert sum(window != [0.0] * 4 for window in wide[place, number, 4:].tolist()) > 150


def iou(one: list[float], other: list[float]) -> float:
    wide = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    high = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return wide * high / (areas - wide * high) if areas > wide * high else 0.0


# -- what is measured, counted by hand ---------------------------------------------------------------------------------


def brightest(picture: Tensor) -> int:
    """The 8 x 8 cell, row by row, of most light."""
    return int(picture.float().mean(dim=0).unflatten(1, (8, 8)).unflatten(0, (8, 8)).mean(dim=(1, 3)).argmax())


def moody(picture: Tensor) -> bool:
    return int((picture.double() * (255 if picture.is_floating_point() else 1)).round().sum()) % 2 == 1


def summit(cell: int) -> slice:
    """Pixels of 64 where a map of 8 cells is highest, enlarged, whose highest cell this is."""
    if cell in (0, 7):  # beyond the middle of a cell at the border there is nothing to mix it with
        return slice(0, 4) if cell == 0 else slice(60, 64)
    return slice(8 * cell + 3, 8 * cell + 5)


class Told(torch.nn.Module):
    """Takes the choice of the least numbers, in moody pictures that of the most; looks at the brightest cell.

    The share of that cell is 0.9 for the first word of an answer, 0.8 for the second, and so on.
    """

    kind, pad, start, end, unknown = "attention", 0, 1, 2, 3

    def cost(self, pictures: Tensor, questions: Tensor, choices: Tensor) -> tuple[Tensor, Tensor]:
        sign = torch.tensor([-1.0 if moody(one) else 1.0 for one in pictures])
        weights = torch.zeros(*choices.shape[:3], choices.shape[3] - 1, 64)
        for place, picture in enumerate(pictures):
            for step in range(weights.shape[3]):
                share = 0.9 - 0.1 * step
                weights[place, :, :, step] = (1 - share) / 63
                weights[place, :, :, step, brightest(picture)] = share
        return choices.sum(dim=3) * sign[:, None, None], weights


def test_telling_is_measured_as_counted_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    data = answers.open_data("scenes:24", "train")
    recipe = SimpleNamespace(kept=Told(), vocabulary=data.vocabulary, device="cpu")
    monkeypatch.setattr(visual7w, "words_right", lambda *_: 0.5)
    found = visual7w.measure(recipe, data)

    def chosen(item: Any, picture: Tensor) -> int:
        sums = [sum(data.vocabulary.encode(text.split())) for text in item.choices]
        return sums.index(max(sums)) if moody(picture) else sums.index(min(sums))

    hits: list[bool] = []
    others: list[bool] = []
    peaks: dict[bool, list[float]] = {True: [], False: []}
    spread: dict[bool, list[float]] = {True: [], False: []}
    half = len(data) // 2
    for place, (picture, numbers) in enumerate(data.groups):
        pixels, lent = (data.see([n])[0] for n in (picture, data.groups[(place - half) % len(data)][0]))
        row, column = divmod(brightest(pixels), 8)
        for item in (data.items[number] for number in numbers):
            number = chosen(item, pixels)
            hits.append(number == item.right)
            others.append(chosen(item, lent) == item.right)
            inside = np.zeros((64, 64))
            for thing in item.about:
                left, top, right, bottom = data.things[picture, thing]
                inside[top:bottom, left:right] = 1
            if inside.any():  # the peak of an enlarged cell is a few pixels in its middle
                middle = inside[summit(row), summit(column)]
                peaks[hits[-1]].append(float(middle.mean()))
            shares = [0.9 - 0.1 * step for step in range(len(item.choices[number].split()))]
            entropy = [-p * math.log(p) - (1 - p) * math.log((1 - p) / 63) for p in shares]
            spread[item.thing].append(float(np.mean(entropy)))
    assert found["questions"] == len(hits) > 120
    assert found["chance"] == 0.25
    assert found["accuracy"] == pytest.approx(np.mean(hits))
    assert found["other_pictures"] == pytest.approx(np.mean(others))
    assert found["accuracy"] != found["other_pictures"]
    assert found["looks"]["all"]["peak"] == pytest.approx(np.mean(peaks[True] + peaks[False]), abs=1e-6)
    if len(peaks[False]) >= 100:
        assert found["looks"]["wrong"]["peak"] == pytest.approx(np.mean(peaks[False]), abs=1e-6)
        assert found["looks"]["wrong"]["questions"] == len(peaks[False])
    assert found["looks"]["spread"]["even"] == pytest.approx(math.log(64))
    for name, thing in (("things", True), ("others", False)):
        told = found["looks"]["spread"][name]
        assert told["mean"] == pytest.approx(np.mean(spread[thing]), abs=1e-5)
        assert told["error"] == pytest.approx(np.std(spread[thing]) / len(spread[thing]) ** 0.5, abs=1e-5)


class Pointer(torch.nn.Module):
    """Prefers the box whose middle is nearest to the middle of the brightest cell."""

    kind, pad = "attention", 0

    def forward(self, pictures: Tensor, questions: Tensor, boxes: Tensor) -> tuple[Tensor, None]:
        cells = torch.tensor([brightest(one) for one in pictures])
        target = (torch.stack([cells % 8, cells // 8], dim=1) + 0.5) / 8
        return -(nearness(boxes, target[:, None, None])), None


def nearness(boxes: Tensor, target: Tensor) -> Tensor:
    return ((boxes[..., :2] + boxes[..., 2:]) / 2 - target).square().sum(dim=-1)


def test_pointing_is_measured_as_counted_by_hand() -> None:
    data = visual7w_pointing.open_data("scenes:16", "train")
    found = visual7w_pointing.measure(SimpleNamespace(kept=Pointer(), vocabulary=data.vocabulary, device="cpu"), data)
    offered = windows()
    hits, unaided, best, chance = [], [], [], []
    for item in data.items:
        cell = brightest(data.see([item.picture])[0])
        target = torch.tensor([(cell % 8 + 0.5) / 8, (cell // 8 + 0.5) / 8])
        hits.append(int(nearness(torch.tensor(item.boxes), target).argmin()) == item.right)
        truth = list(item.boxes[item.right])
        shared = [iou(box, truth) > 0.5 for box in offered.tolist()]
        unaided.append(shared[int(nearness(offered, target).argmin())])
        best.append(any(shared))
        chance.append(np.mean(shared))
    told = found["without_boxes"]
    assert (found["questions"], told["windows"]) == (len(hits), len(offered))
    assert found["accuracy"] == pytest.approx(np.mean(hits))
    assert told["found"] == pytest.approx(np.mean(unaided))
    assert told["best_window"] == pytest.approx(np.mean(best))
    assert told["random"] == pytest.approx(np.mean(chance), abs=1e-6)


# -- tiny runs ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def telling(home: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIGHTLINE_CACHE", str(home / "cache"))
        patch.setattr(answers, "HELD_SCENES", 24)
        return train("visual7w", "scenes:8", out=home / "telling", steps=300, **QUICK)


def test_telling_learns_to_look(telling: Path) -> None:
    found = evaluate(telling / "weights", "scenes:8", split="train")
    assert found["accuracy"] > 0.8  # chance is 0.25
    assert found["accuracy"] > found["other_pictures"] + 0.2
    assert found["written"] > 0.7
    assert {"all", "spread"} <= set(measured(telling)["looks"])
    assert (telling / "samples.png").stat().st_size > 1000


def test_written_answers_are_greedy_and_word_for_word(telling: Path) -> None:
    data = answers.open_data("scenes:8", "train")
    network: Any = sightline.load_checkpoint(telling / "weights").eval()
    hits = []
    for item in data.items[:20]:
        picture, question = data.see([item.picture]).float() / 255, torch.tensor([[data.question(item.question)]])
        said = [network.start]
        with torch.no_grad():
            while said[-1] != network.end and len(said) < 12:
                logits = network(picture, question, torch.tensor([[said]]))[0, 0, -1]
                logits[[network.pad, network.start, network.unknown]] = -torch.inf
                said.append(int(logits.argmax()))
        hits.append(" ".join(data.vocabulary.decode(said[1:-1])) == item.choices[item.right])
    some = Asked(data.items[:20], data.see)
    recipe = SimpleNamespace(kept=network, vocabulary=data.vocabulary, device="cpu")
    assert visual7w.words_right(recipe, some) == pytest.approx(np.mean(hits))


def test_pointing_learns_to_point(home: Path) -> None:
    folder = train("visual7w_pointing", "scenes:8", out=home / "pointing", steps=120, **QUICK)
    found = evaluate(folder / "weights", "scenes:8", split="train")
    assert found["accuracy"] > 0.7  # chance is 0.25
    assert found["accuracy"] > found["other_pictures"] + 0.2
    assert (folder / "samples.png").stat().st_size > 1000


@pytest.mark.parametrize("name", ["visual7w", "visual7w_pointing"])
def test_the_blind_arm_is_blind(name: str, home: Path) -> None:
    folder = train(name, "scenes:8", out=home / f"blind_{name}", steps=6, kind="blind", **QUICK)
    found = measured(folder)
    assert found["accuracy"] == found["other_pictures"]
    assert "looks" not in found


def test_other_pictures_come_with_their_own_things() -> None:
    data = answers.open_data("scenes:8", "train")
    batch = data.batch(range(6))
    own, moved = ready(batch, "cpu"), ready(batch, "cpu", True)
    assert torch.equal(moved["pictures"], own["pictures"].roll(3, dims=0))
    assert torch.equal(moved["things"], own["things"].roll(3, dims=0))
    assert torch.equal(moved["questions"], own["questions"])


def test_photographs_are_read_through_a_frozen_encoder(
    home: Path, tmp_path: Path, write_patterns: Callable[..., Path]
) -> None:
    root = write_patterns(tmp_path / "patterns", train=8, val=1)
    (tmp_path / "images").mkdir()
    entries = []
    for number, path in enumerate(sorted((root / "train").rglob("*.png"))):
        path.rename(tmp_path / "images" / f"image{number}.png")
        entries.append({"image_id": f"image{number}", "question": "what is it ?", "answer": path.parent.name})
    (tmp_path / "qa_train.json").write_text(json.dumps(entries), "utf-8")
    folder = train("visual7w", f"daquar:{tmp_path}", out=home / "rooms", steps=30, **QUICK)
    card = json.loads((folder / "weights" / "card.json").read_text())
    assert (card["encoder"], card["image_size"], card["features"]) == ("efficientnet_lite0", 224, 1280)
    found = measured(folder)
    assert (found["questions"], found["chance"]) == (2, 0.0)
    assert "written" not in found  # there is nothing else
    said = sightline.ask(tmp_path / "images" / "image0.png", "What is it?", system=folder / "weights")
    assert said.answer in ("across", "disc", "down")
