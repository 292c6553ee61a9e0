"""Visual7W: equal to a naive transcription of the paper's equations; padding, controls, decoding, boxes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

import sightline
from sightline.decoding import greedy
from sightline.systems.visual7w import KINDS, Visual7W, Visual7WPointing, covered, visual7w_pointing, visual7w_telling

SIZES = {"vocab": 13, "width": 6, "embedding": 5, "hidden": 8, "attention": 4, "dropout": 0.3}


def tiny(kind: str = "attention", *, pointing: bool = False, **more: object) -> Visual7W | Visual7WPointing:
    torch.manual_seed(0)
    given_sizes = {**SIZES, "image_size": 32, "kind": kind, **({"region": 7} if pointing else {}), **more}
    model = (Visual7WPointing if pointing else Visual7W)(**given_sizes).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def some(batch: int = 3, questions: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    pictures = torch.rand(batch, 3, 32, 32, generator=generator)
    asked = torch.randint(4, 13, (batch, questions, 5), generator=generator)
    asked[0, 0, 3:] = 0
    answers = torch.randint(4, 13, (batch, questions, 5), generator=generator)
    answers[:, :, 0], answers[:, :, 3], answers[:, :, 4] = 1, 2, 0
    answers[0, 1, 2:] = torch.tensor([2, 0, 0])
    return pictures, asked, answers


# -- the equations of the paper, one question at a time, in numpy ------------------------------------------------------


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


class Naive:
    """Equations 1 to 9 of Zhu et al. 2016, word by word; `kind` as the controls."""

    def __init__(self, model: Visual7W | Visual7WPointing, picture: Tensor) -> None:
        self.w = {name: tensor.double().numpy() for name, tensor in model.reader.state_dict().items()}
        self.kind = model.kind
        with torch.no_grad():
            cells, code = model.reader.see(picture[None])
        self.cells, self.code = cells[0].double().numpy(), code[0].double().numpy()
        if self.kind == "blind":
            self.cells, self.code = self.cells * 0, self.code * 0
        self.h = np.zeros(self.w["recall.weight"].shape[1])
        self.c = np.zeros_like(self.h)
        self.looked: list[np.ndarray] = []
        self.feed(self.w["picture.weight"] @ self.code + self.w["picture.bias"])  # v_0 = W_i F(I) + b_i

    def feed(self, v: np.ndarray) -> None:
        w = self.w
        scores = []
        for cell in self.cells:  # e = w_a . tanh(W_he h + W_ce C(I))
            meeting = w["attention.query.weight"] @ self.h + w["attention.key.weight"] @ cell + w["attention.key.bias"]
            scores.append(w["attention.score.weight"][0] @ np.tanh(meeting))
        a = np.exp(scores) / np.exp(scores).sum()
        if self.kind != "attention":
            a = np.full(len(scores), 1 / len(scores))
        r = sum(share * cell for share, cell in zip(a, self.cells, strict=True))
        if self.kind in ("first", "blind"):
            r = r * 0
        gates = w["read.weight"] @ v + w["read.bias"] + w["recall.weight"] @ self.h + w["let_in.weight"] @ r
        i, f, g, o = np.split(gates, 4)
        self.c = sigmoid(f) * self.c + sigmoid(i) * np.tanh(g)
        self.h = sigmoid(o) * np.tanh(self.c)
        self.looked.append(a)

    def word(self, number: int) -> np.ndarray:
        self.feed(self.w["embedding.weight"][number])
        return self.h


def read(naive: Naive, words: Tensor) -> None:
    for number in words.tolist():
        if number:
            naive.word(number)


@pytest.mark.parametrize("kind", KINDS)
def test_telling_is_the_papers_equations(kind: str) -> None:
    model = tiny(kind)
    pictures, asked, answers = some()
    with torch.no_grad():
        logits = model(pictures, asked, answers)
        cost, looked = model.cost(pictures, asked, answers[:, :, None])
    out, bias = (tensor.detach().double().numpy() for tensor in (model.words.weight, model.words.bias))
    for b in range(3):
        for q in range(2):
            naive = Naive(model, pictures[b])
            read(naive, asked[b, q])
            before = len(naive.looked)
            written = [number for number in answers[b, q].tolist() if number]
            costs = []
            for step, number in enumerate(written[:-1]):
                said = out @ naive.word(number) + bias
                np.testing.assert_allclose(logits[b, q, step].numpy(), said, atol=2e-5)
                costs.append(np.log(np.exp(said).sum()) - said[written[step + 1]])
                np.testing.assert_allclose(looked[b, q, 0, step].numpy(), naive.looked[before + step], atol=1e-6)
            assert float(cost[b, q, 0]) == pytest.approx(float(np.mean(costs)), abs=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_pointing_is_a_dot_product_of_region_and_last_state(kind: str) -> None:
    model = tiny(kind, pointing=True)
    pictures, asked, _ = some()
    generator = torch.Generator().manual_seed(2)
    corner = torch.rand(3, 2, 4, 2, generator=generator) * 0.5
    boxes = torch.cat([corner, corner + 0.1 + 0.4 * torch.rand(corner.shape, generator=generator)], dim=3)
    with torch.no_grad():
        scores, looked = model(pictures, asked, boxes)
    w = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}
    for b in range(3):
        for q in range(2):
            naive = Naive(model, pictures[b])
            read(naive, asked[b, q])
            words = int((asked[b, q] > 0).sum())
            np.testing.assert_allclose(looked[b, q, :words].numpy(), naive.looked[1:], atol=1e-6)
            for place, box in enumerate(boxes[b, q].double().numpy()):
                under = sum(naive.cells[4 * y + x] * share for y, x, share in shares(box, 4))
                region = np.maximum(0, w["region.weight"] @ np.concatenate([under, 2 * box - 1]) + w["region.bias"])
                wanted = (w["meet.weight"] @ region + w["meet.bias"]) @ naive.h / 8**0.5
                assert float(scores[b, q, place]) == pytest.approx(float(wanted), abs=5e-5)


def shares(box: np.ndarray, side: int) -> list[tuple[int, int, float]]:
    """How much of a box lies on each cell, one cell at a time."""
    found = []
    for y in range(side):
        for x in range(side):
            wide = min(box[2], (x + 1) / side) - max(box[0], x / side)
            high = min(box[3], (y + 1) / side) - max(box[1], y / side)
            found.append((y, x, max(0.0, wide) * max(0.0, high)))
    total = sum(share for _, _, share in found)
    return [(y, x, share / total) for y, x, share in found]


# -- what may not matter -----------------------------------------------------------------------------------------------


def test_padding_and_companions_change_nothing() -> None:
    model = tiny()
    pictures, asked, answers = some()
    wider = F.pad(asked, (0, 3)), F.pad(answers, (0, 2))
    more = torch.cat([wider[0], torch.zeros_like(wider[0][:, :1])], dim=1)
    with torch.no_grad():
        alone = model(pictures[:1], asked[:1, :1, :3], answers[:1, :1, :4])
        together = model(pictures, more, torch.cat([wider[1], torch.zeros_like(wider[1][:, :1])], dim=1))
    torch.testing.assert_close(together[:1, :1, :3], alone[:, :, :3])


def test_loss_counts_answer_words_and_their_end_alone() -> None:
    model = tiny()
    pictures, asked, answers = some()
    batch = {"pictures": pictures, "questions": asked, "answers": answers}
    with torch.no_grad():
        loss = model.loss(batch)["loss"]
        logits = model(pictures, asked, answers)
    each = [
        F.cross_entropy(logits[b, q, t], answers[b, q, t + 1])
        for b in range(3)
        for q in range(2)
        for t in range(4)
        if answers[b, q, t + 1]
    ]
    torch.testing.assert_close(loss, torch.stack(each).mean())


def test_controls_see_what_they_may() -> None:
    pictures, asked, answers = some()
    for kind in KINDS:
        model = tiny(kind)
        with torch.no_grad():
            told = [model(one, asked, answers) for one in (pictures, pictures.flip(0))]
        assert torch.equal(*told) == (kind == "blind"), kind
    with pytest.raises(ValueError, match="kind is one of attention"):
        Visual7W(vocab=9, kind="twice")
    with pytest.raises(ValueError, match="multiple of 8"):
        Visual7W(vocab=9, image_size=30)


@pytest.mark.parametrize("pointing", [False, True])
def test_gradients_reach_every_parameter(pointing: bool) -> None:
    model = tiny(pointing=pointing).train()
    pictures, asked, answers = some()
    boxes = torch.tensor([[0.1, 0.1, 0.4, 0.5], [0.5, 0.2, 0.9, 0.6]]).expand(3, 2, 2, 4)
    extra = {"boxes": boxes, "right": torch.tensor([[0, 1], [1, 0], [1, -1]])} if pointing else {"answers": answers}
    model.loss({"pictures": pictures, "questions": asked, **extra})["loss"].backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert not without


# -- decoding, the lens, folders, presets ------------------------------------------------------------------------------


def test_decoding_follows_the_forward_pass() -> None:
    model = tiny()
    pictures, asked, _ = some()
    with torch.no_grad():
        # padding ends a row for `forward`, so it may not be said
        found = greedy(*model.decoder(pictures, asked), start=1, end=2, max_length=6, blocked=(0,))
        given_answers = torch.cat([torch.ones(6, 1, dtype=torch.long), found.tokens], dim=1).unflatten(0, (3, 2))
        logits = model(pictures, asked, given_answers[:, :, :-1]).flatten(0, 1)
    assert len(found.tokens) == 6
    for row, length in enumerate(found.lengths.tolist()):
        assert (logits[row, :length, 1:].argmax(dim=1) + 1).tolist() == found.tokens[row, :length].tolist()


def test_the_lens_sees_every_step() -> None:
    model = tiny()
    pictures, asked, answers = some()
    with torch.no_grad(), sightline.record(model) as seen:
        model(pictures[1:2], asked[1:2, :1], answers[1:2, :1, :3])
    weights = torch.cat([site.weights for site in seen], dim=2)
    assert weights.shape == (1, 1, 1 + 5 + 3, 16)  # the picture, five words, start and two more
    torch.testing.assert_close(weights.sum(dim=3), torch.ones(1, 1, 9))


def test_folders_load(tmp_path: Path) -> None:
    for pointing in (False, True):
        model = tiny(pointing=pointing)
        model.save_pretrained(tmp_path / str(pointing))
        again = sightline.load_checkpoint(tmp_path / str(pointing))
        assert type(again) is type(model)
        assert all(
            torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True)
        )


def test_a_frozen_encoders_features_are_taken_as_they_are() -> None:
    model = tiny(features=10)
    features, (_, asked, answers) = torch.randn(3, 9, 10), some()
    with torch.no_grad():
        told = model(features, asked, answers)
        seen = model.reader.look(features)
    assert seen.cells.shape == (3, 9, 6)
    torch.testing.assert_close(seen.code, features.mean(dim=1))
    order = torch.randperm(9)  # cells have no places of their own
    with torch.no_grad():
        torch.testing.assert_close(model(features[:, order], asked, answers), told)


def test_a_cell_sees_what_is_near_it() -> None:
    model = tiny(image_size=96)
    dark = torch.zeros(1, 3, 96, 96)
    spot = dark.clone()
    spot[:, :, 65:71, 17:23] = 1.0  # within the cell of row 8, column 2
    with torch.no_grad():
        change = (model.reader.look(spot).cells - model.reader.look(dark).cells).abs().sum(dim=2).view(12, 12)
    assert float(change[8, 2]) > 0
    far = torch.ones(12, 12, dtype=torch.bool)
    far[6:11, 0:5] = False  # four convolutions see 31 pixels, a cell and two more on each side at most
    assert not change[far].any()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_boxes_cover_cells_by_area(side: int, corners: list[float]) -> None:
    left, right = sorted(corners[:2])
    top, bottom = sorted(corners[2:])
    part = covered(torch.tensor([[[left, top, right, bottom]]]), side)[0, 0]
    assert part.shape == (side**2,)
    if (right - left) * (bottom - top) > 1e-4:
        wanted = torch.zeros(side, side)
        for y, x, share in shares(np.array([left, top, right, bottom]), side):
            wanted[y, x] = share
        torch.testing.assert_close(part, wanted.flatten(), atol=1e-4, rtol=1e-3)
    assert float(part.sum()) <= 1 + 1e-4


def test_presets_have_the_papers_sizes() -> None:
    with torch.device("meta"):
        telling, pointing = visual7w_telling(vocab=50), visual7w_pointing(vocab=50)
    assert telling.words.in_features == 512
    assert telling.reader.see.narrow.in_features == 512
    assert pointing.region.out_features == 4096
