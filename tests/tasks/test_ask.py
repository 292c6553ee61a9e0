"""`ask`: the answer is what the system says, choices are weighed by mean cost, pictures and notes, refusals."""

import json
import math
from html import escape
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sightline.data.vocabulary import Vocabulary
from sightline.systems.visual7w import Visual7W
from sightline.tasks.answerer import Answerer, open_answerer
from sightline.tasks.ask import ask
from sightline.tasks.questions import QuestionError

WORDS = ("what", "color", "is", "the", "cube", "red", "blue", "left", "of", "sphere", "a")
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))


def toy(kind: str = "attention") -> Answerer:
    torch.manual_seed(1)
    sizes = {"image_size": 32, "width": 8, "embedding": 8, "hidden": 12, "attention": 4}
    model = Visual7W(vocab=4 + len(WORDS), **sizes, kind=kind).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.6)
    return Answerer(model, Vocabulary(WORDS), "toy", "toy scenes")


def by_hand(opened: Answerer, question: str, answer: str) -> tuple[float, list[float]]:
    """The mean cost of an answer's words and its end, and the probability of each, word by word."""
    numbers = [1, *opened.vocabulary.encode(answer.split()), 2]
    asked = torch.tensor([[opened.vocabulary.encode(question.split())]])
    with torch.no_grad():
        logits = opened.model(opened.see(PICTURE), asked, torch.tensor([[numbers[:-1]]]))[0, 0].double()
    chances = logits.softmax(dim=1)[torch.arange(len(numbers) - 1), numbers[1:]]
    return float(-chances.log().mean()), chances.tolist()


def test_choices_are_weighed_by_the_mean_cost_of_their_words() -> None:
    opened = toy()
    offered = ["red", "the blue cube", "Left of the sphere!"]
    said = ask(PICTURE, "What colour is the cube?", choices=offered, system=opened)
    assert [text for text, _ in said.choices] == offered
    plain = [
        by_hand(opened, "what color is the cube", text)[0] for text in ("red", "the blue cube", "left of the sphere")
    ]
    np.testing.assert_allclose([cost for _, cost in said.choices], plain, atol=1e-4)
    assert said.answer == offered[int(np.argmin(plain))]
    shares = np.exp(-np.array(plain))
    assert said.probability == pytest.approx(shares.max() / shares.sum(), abs=1e-4)


def test_an_answer_is_written_and_its_probability_is_that_of_its_words() -> None:
    opened = toy()
    said = ask(PICTURE, "what color is the cube?", system=opened)
    assert said.choices == ()
    cost, chances = by_hand(opened, "what color is the cube", " ".join(said.words))
    np.testing.assert_allclose(said.probabilities, chances[: len(said.words)], atol=1e-5)
    assert said.probability == pytest.approx(math.exp(np.mean(np.log(chances[:-1]))) if said.words else 0, abs=1e-5)
    others = [by_hand(opened, "what color is the cube", word)[0] for word in WORDS]
    assert cost <= min(others) + 1e-4  # no single word would have been cheaper
    assert ask(PICTURE, "what color is the cube?", system=opened, beam=1).words


def test_every_word_of_question_and_answer_has_a_map() -> None:
    said = ask(PICTURE, "what color is the cube?", choices=["red", "a sphere"], system=toy())
    assert said.attention is not None
    assert list(said.attention.words)[:5] == ["what", "color", "is", "the", "cube"]
    assert [word for word in said.attention.words if word.startswith("→")] == [f"→ {word}" for word in said.words]
    assert said.attention.words[said.attention.opens] == f"→ {said.words[0]}"  # the page opens on the answer
    maps = np.asarray(said.attention.maps)
    assert maps.shape == (5 + len(said.words), 4, 4)
    np.testing.assert_allclose(maps.sum(axis=(1, 2)), 1, atol=1e-4)


def test_results_are_drawn_saved_and_noted(tmp_path: Path) -> None:
    said = ask(PICTURE, "what color is the dog?", system=toy())
    assert said.unknown == ("dog",)
    assert said.note == "toy knows toy scenes; it never read: dog"
    assert said.attention is not None
    about = 'a word\'s map need not lie on what it names, and the words "what", "is" and "the" name nothing to look at'
    assert list(said.attention.words)[:5] == ["what", "color", "is", "the", "dog*"]
    assert said.attention.caption == f"* never read by toy: dog; toy scenes; {about}"
    assert escape(about) in (said.save(tmp_path / "a.html")).read_text("utf-8")
    plain = ask(PICTURE, "red cube?", system=toy()).attention
    assert plain is not None
    assert plain.caption == "toy scenes"
    for name in ("a.png", "a.html"):
        assert said.save(tmp_path / name).stat().st_size > 500
    assert said.picture().width > 100
    assert "what color is the dog?" in said._repr_html_()
    assert str(said) == said.answer


def test_without_attention_there_is_an_answer_and_no_picture() -> None:
    said = ask(PICTURE, "what color is the cube?", system=toy("first"))
    assert said.attention is None
    with pytest.raises(QuestionError, match="without attention"):
        said.picture()
    assert "<img" not in said._repr_html_()


def test_folders_of_runs_open(tmp_path: Path) -> None:
    opened = toy()
    opened.model.save_pretrained(tmp_path / "weights")
    opened.vocabulary.save(tmp_path / "weights" / "words.json")
    (tmp_path / "weights" / "card.json").write_text(json.dumps({"data": "toy scenes"}), "utf-8")
    there = ask(PICTURE, "what is red?", choices=["red", "blue"], system=tmp_path)
    here = ask(PICTURE, "what is red?", choices=["red", "blue"], system=opened)
    np.testing.assert_allclose([c for _, c in there.choices], [c for _, c in here.choices], atol=1e-6)
    assert there.knows == "toy scenes"
    (tmp_path / "weights" / "words.json").unlink()
    with pytest.raises(QuestionError, match=r"words\.json"):
        open_answerer(tmp_path, (), ["red"])


def test_refusals_say_what_to_do() -> None:
    opened = toy()
    for question, more, told in (
        ("", {}, "the question is empty"),
        ("what " * 21, {}, "at most 20"),
        ("wer ist das", {}, "no word of"),
        ("what is red", {"choices": ["red"]}, "two answers or more"),
        ("what is red", {"choices": "red"}, "two answers or more"),
        ("what is red", {"choices": ["red", "…"]}, "has no words"),
        ("what is red", {"beam": 0}, "beam"),
        ("what is red", {"system": "nobody-s"}, "no answerer"),
    ):
        with pytest.raises(QuestionError, match=told):
            ask(PICTURE, question, **({"system": opened} | more))
