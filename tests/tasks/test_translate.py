"""Translating: what is written is what beam search finds, the alignment is the model's own, bad input is told."""

from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

import sightline
from sightline.data.subwords import Subwords
from sightline.data.transduction import Transduction
from sightline.decoding import beam_search
from sightline.lens.alignment import Alignment
from sightline.systems.seq2seq import Seq2Seq
from sightline.tasks.translate import (
    PIECES,
    Translation,
    TranslationError,
    Translator,
    alignment,
    in_words,
    open_translator,
    search,
    translate,
    translate_all,
)

SENTENCES = ["a b c", "d e f g a b c d", "b", "c c c a", "g f e d c b a"]


def translator(attention: str = "additive") -> Translator:
    pieces = Subwords.build(Transduction("copy", 50).source, size=70)
    torch.manual_seed(0)
    model = Seq2Seq(
        source_words=len(pieces), target_words=len(pieces), embedding=12, encoder=8, decoder=16, attention=attention
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return Translator(model.eval(), pieces, "toy")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    opened = translator()
    opened.model.save_pretrained(tmp_path / "toy")
    opened.pieces.save(tmp_path / "toy" / PIECES)
    return tmp_path / "toy"


def test_a_picture_says_what_its_escapes_stand_for_and_the_page_has_the_letters(tmp_path: Path) -> None:
    attention = Alignment(np.array([[1.0]]), ("Hund",), ("中",))
    plain, escaped = (Translation("Hund", source, 0.0, attention, "mine") for source in ("ein", "中"))
    assert plain._escapes() == ""
    assert escaped._escapes().endswith("U+… stands for a character that the picture's font lacks; the page shows it")
    page = escaped.save(tmp_path / "page.html").read_text("utf-8")
    assert "from: 中</p>" in page
    assert "U+" not in page


@pytest.mark.parametrize("attention", ["none", "additive", "general"])
def test_each_sentence_is_translated_as_alone_in_any_order_and_batch(attention: str) -> None:
    opened = translator(attention)
    together = translate_all(SENTENCES, system=opened, batch=2)
    for text, found in zip(SENTENCES, together, strict=True):
        alone = translate(text, system=opened)
        assert (found.text, found.source) == (alone.text, text)
        assert found.score == pytest.approx(alone.score, abs=1e-5)


def test_the_score_is_the_mean_log_probability_of_a_piece_for_any_length_penalty() -> None:
    opened = translator()
    source = [*opened.pieces.encode("a b c"), opened.pieces.end]
    words = {"start": 1, "end": 2, "blocked": (0, 1, 3)}
    for penalty in (0.0, 0.6, 1.0):
        (target, score), *_ = search(opened.model, [source], opened.pieces, length_penalty=penalty)
        given = torch.tensor([[1, *target]])
        with torch.no_grad():
            log_probs = opened.model(torch.tensor([source]), torch.tensor([len(source)]), given).log_softmax(dim=2)[0]
            step, state = opened.model.steps(torch.tensor([source]), torch.tensor([len(source)]))
        found = beam_search(step, state, beam=5, length_penalty=penalty, max_length=26, **words)
        assert found.lists()[0] == target
        if len(target) < 26:
            wanted = log_probs.gather(1, torch.tensor([*target, 2])[:, None]).mean()
            assert score == pytest.approx(float(wanted), abs=1e-4)


def test_the_alignment_is_what_the_model_looked_at_while_writing() -> None:
    opened = translator()
    source = [*opened.pieces.encode("a b c d"), opened.pieces.end]
    (target, _), *_ = search(opened.model, [source], opened.pieces, beam=1)
    heard: list[torch.Tensor] = []
    with torch.no_grad():
        step, state = opened.model.steps(torch.tensor([source]), torch.tensor([len(source)]))
        for word in [1, *target[:-1]]:
            with sightline.record(opened.model.decoder.attention) as seen:
                _, state = step(torch.tensor([word]), state)
            heard.append(seen[0].weights[0, 0])
    weights = alignment(opened.model, source, target, opened.pieces)
    np.testing.assert_allclose(weights, torch.cat(heard).numpy(), atol=1e-6)


def test_words_are_joined_from_pieces_and_marks_stand_alone() -> None:
    pieces = Subwords.build(["Ein Mann, ein Hund. x-y"], size=40)
    numbers = [*pieces.encode("Ein Mann, ein x-y."), pieces.end]
    weights = np.full((len(numbers) - 1, len(numbers)), 1 / len(numbers))
    found = in_words(weights, numbers[:-1], numbers, pieces)
    assert found.source == ("Ein", "Mann", ",", "ein", "x-y", ".", "<end>")
    assert found.target == found.source[:-1]
    np.testing.assert_allclose(found.weights.sum(axis=1), 1)


def test_the_result_shows_and_saves_itself(folder: Path, tmp_path: Path) -> None:
    found = translate("a b  c", system=folder)
    assert str(found) == found.text
    assert found.source == "a b c"
    assert found.attention is not None
    assert found.attention.source[-1] == "<end>"
    assert found.save(tmp_path / "a.png").stat().st_size > 1000
    assert "<table>" in found.save(tmp_path / "a.html").read_text(encoding="utf-8")
    assert 'class="alignment"' in found._repr_html_()


def test_a_system_without_attention_translates_but_draws_nothing() -> None:
    found = translate("a b c", system=translator("none"))
    assert found.attention is None
    assert found.text in found._repr_html_()
    with pytest.raises(TranslationError, match="without attention"):
        found.picture()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "the sentence is empty"),
        (" \n\t", "the sentence is empty"),
        ("漢字", "no character of it is known"),
        ("a " * 500, "500 pieces of words, at most 400"),
    ],
)
def test_sentences_that_say_nothing_are_refused_in_one_line(text: object, told: str) -> None:
    with pytest.raises(TranslationError, match=told) as error:
        translate(text, system=translator())
    assert "\n" not in str(error.value)


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises((TranslationError, TypeCheckError)):  # here the checks of types come first
        translate(None, system=translator())


def test_systems_that_do_not_translate_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TranslationError, match="no translator 'nowhere'"):
        open_translator("nowhere")
    with pytest.raises(TranslationError, match="no translator 'vit'"):
        open_translator("vit")
    (folder / PIECES).write_text("{}")
    with pytest.raises(ValueError, match=PIECES):
        open_translator(folder)


@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("penalty", [-0.5, float("nan"), float("inf")])
def test_searches_that_are_none_are_refused(beam: int, penalty: float) -> None:
    with pytest.raises(TranslationError, match="length_penalty must be a number of 0 or more"):
        translate("a", system=translator(), beam=beam, length_penalty=penalty)
    with pytest.raises(TranslationError, match="beam and batch must be 1 or more"):
        translate("a", system=translator(), beam=0)


def test_a_beam_wider_than_the_vocabulary_is_a_search() -> None:
    opened = translator()
    source = [*opened.pieces.encode("a b c"), opened.pieces.end]
    (target, score), *_ = search(opened.model, [source], opened.pieces, beam=len(opened.pieces) + 20)
    assert np.isfinite(score)
    assert set(target) <= set(range(4, len(opened.pieces)))


def test_a_sentence_of_one_piece_and_one_of_many_have_an_alignment_each() -> None:
    for text in ("a", "a " * 150):
        found = translate(text, system=translator(), beam=2)
        if found.text:
            assert found.attention is not None
            assert found.attention.weights.shape == (len(found.attention.target), len(text.split()) + 1)
