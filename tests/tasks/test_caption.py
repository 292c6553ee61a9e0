"""Captioning: the words are those of beam search, the maps those the model looked at, bad input is told in one line."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import sightline
from sightline.data.features import squashed
from sightline.data.photographs import PhotographError, sample_photographs
from sightline.data.vocabulary import Vocabulary
from sightline.decoding import greedy
from sightline.systems.show_and_tell import ShowAndTell
from sightline.systems.show_attend_tell import ShowAttendTell
from sightline.tasks.caption import Captioner, CaptionError, caption, open_captioner
from sightline.tasks.encoder import open_encoder

WORDS = ["a", "dog", "runs", "on", "grass", "<b>", "'s"]
SIZES = {"vocab": 11, "width": 1280, "embedding": 8, "hidden": 12}


def captioner(kind: str = "soft", seed: int = 11) -> Captioner:
    torch.manual_seed(seed)
    system = ShowAndTell(**SIZES) if kind == "none" else ShowAttendTell(**SIZES, attention=8, form="compact", kind=kind)
    for parameter in system.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return Captioner(system.eval(), open_encoder("efficientnet_lite0", 96), Vocabulary(WORDS), kind)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    opened = captioner()
    opened.system.save_pretrained(tmp_path)
    opened.vocabulary.save(tmp_path / "vocabulary.json")
    (tmp_path / "card.json").write_text(json.dumps({"encoder": "efficientnet_lite0", "image_size": 96}))
    return tmp_path


def features_of(opened: Captioner, picture: Image.Image) -> torch.Tensor:
    return opened.encoder(squashed(picture, opened.encoder.side)[None]).flatten(2).transpose(1, 2).float()


@pytest.mark.parametrize("kind", ["soft", "hard", "none"])
def test_one_beam_says_what_the_likeliest_words_say(kind: str) -> None:
    opened = captioner(kind)
    picture = Image.open(sample_photographs()[0]).convert("RGB")
    said = caption(picture, system=opened, beam=1)
    with torch.no_grad():
        step, state = opened.system.decoder(features_of(opened, picture))
        found = greedy(step, state, start=1, end=2, max_length=25, blocked=(0, 1, 3))
    assert said.words
    assert said.words == tuple(opened.vocabulary.decode(found.lists()[0]))


def test_probabilities_and_score_are_the_models_own() -> None:
    opened = captioner(seed=3)
    picture = Image.open(sample_photographs()[1]).convert("RGB")
    said = caption(picture, system=opened, beam=4)
    tokens = [1, *opened.vocabulary.encode(said.words), 2]
    with torch.no_grad():  # word by word, as while writing
        step, state = opened.system.decoder(features_of(opened, picture))
        chances = []
        for word, following in pairwise(tokens):
            log_probs, state = step(torch.tensor([word]), state)
            chances.append(float(log_probs[0, following]))
    assert np.log(said.probabilities) == pytest.approx(chances[:-1], abs=1e-4)
    assert said.score == pytest.approx(np.mean(chances), abs=1e-4)


def test_each_map_is_where_the_model_looked_before_it_said_the_word() -> None:
    opened = captioner(seed=5)
    picture = Image.open(sample_photographs()[0]).convert("RGB")
    said = caption(picture, system=opened, beam=1)
    with sightline.record(opened.system) as seen, torch.no_grad():
        step, state = opened.system.decoder(features_of(opened, picture))
        for word in [1, *opened.vocabulary.encode(said.words)][: len(said.words)]:
            _, state = step(torch.tensor([word]), state)
    assert said.attention is not None
    heard = torch.stack([site.weights.flatten() for site in seen])
    shown = torch.stack([torch.as_tensor(one).flatten() for one in said.attention.maps])
    assert torch.allclose(shown, heard, atol=1e-5)


@settings(max_examples=12, deadline=None)
@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    mode=st.sampled_from(["RGB", "L", "RGBA", "P", "CMYK", "1", "I;16"]),
    beam=st.integers(1, 6),
)
def test_any_picture_gets_maps_that_sum_to_one(width: int, height: int, mode: str, beam: int) -> None:
    said = caption(Image.new(mode, (width, height)), system=OPENED, beam=beam)
    assert len(said.words) == len(said.probabilities)
    assert not set(said.words) & {"<pad>", "<start>", "<end>", "<unk>"}
    if said.words:
        assert said.attention is not None
        assert np.allclose([np.sum(one) for one in said.attention.maps], 1, atol=1e-4)


OPENED = captioner(seed=5)  # says "<b>" of the first sample


def test_the_sentence_is_written_as_a_page_and_a_picture(tmp_path: Path) -> None:
    photograph = sample_photographs()[0]
    said = caption(photograph, system=OPENED)
    assert said.words
    assert said.text[0].isupper() or not said.text[0].isalpha()
    assert said.text.endswith(".")
    page = said.save(tmp_path / "told.html").read_text("utf-8")
    assert said.attention is not None
    assert said.attention.title == said.text  # the picture and the page say it as the shell does
    assert page.count("<label") == 1 + len(said.words)  # the photograph, and each word
    assert "<b>" not in page  # a word is text, whatever it is
    assert "<b>" not in said._repr_html_()
    assert Image.open(said.save(tmp_path / "told.png")).height > 100
    with pytest.raises(ValueError, match=r"\.html"):
        said.save(tmp_path / "told.doc")
    with pytest.raises(PhotographError):
        caption(tmp_path / "nowhere.jpg", system=OPENED)


def test_picture_and_page_say_what_is_known_of_a_captioners_limits(folder: Path) -> None:
    bundled = open_captioner("show_attend_tell")
    limits = (
        "show_attend_tell says of every picture what is likely in those that it learned from (Flickr8k train, 6,000"
    )
    assert bundled.limits.startswith(limits)
    said = caption(Image.new("RGB", (40, 30), (90, 120, 60)), system=bundled, beam=1)
    assert said.attention is not None
    assert said.attention.caption.endswith(f"given those before it. {bundled.limits}")
    card = {"encoder": "efficientnet_lite0", "image_size": 96, "data": "flickr8k:mine/Flickr8k"}
    (folder / "card.json").write_text(json.dumps(card))
    assert open_captioner(str(folder)).limits == ""  # a run's card may name folders of somebody's machine


def test_the_callers_network_is_left_as_it_was() -> None:
    opened = captioner()
    opened.system.train()
    one, two = (caption(sample_photographs()[2], system=opened) for _ in range(2))
    assert opened.system.training
    assert one.words
    assert (one.words, one.probabilities) == (two.words, two.probabilities)  # dropout was off


def test_a_folder_says_the_same_as_the_object(folder: Path) -> None:
    picture = sample_photographs()[2]
    said = caption(picture, system=folder)
    assert said.text
    assert said.text == caption(picture, system=captioner()).text
    assert caption(picture, system=str(folder)).system == str(folder)


@pytest.mark.parametrize(
    ("file", "contents", "told"),
    [
        ("card.json", "{", "no JSON"),
        ("card.json", "[]", "names no encoder"),
        ("card.json", '{"encoder": null}', "names no encoder"),
        ("card.json", '{"encoder": "vit"}', "no bundled encoder"),
        ("vocabulary.json", '["a", "dog"]', "vocabulary"),
        ("vocabulary.json", None, "no captioner"),
        ("card.json", None, "no captioner"),
        ("config.json", '{"vocab": 4}', "config"),
    ],
)
def test_a_folder_that_does_not_fit_is_told_in_one_line(
    folder: Path, file: str, contents: str | None, told: str
) -> None:
    if contents is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(contents)
    with pytest.raises(ValueError, match=told) as caught:
        open_captioner(folder)
    assert "\n" not in str(caught.value)


def test_words_of_another_run_are_refused(folder: Path) -> None:
    Vocabulary(WORDS[:3]).save(folder / "vocabulary.json")
    with pytest.raises(CaptionError, match="7 words, the weights beside it 11"):
        open_captioner(folder)


def test_a_system_that_does_not_caption_is_refused(folder: Path) -> None:
    from sightline.checkpoints.bundled import bundled_folder

    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((bundled_folder("ram") / name).read_bytes())
    with pytest.raises(CaptionError, match="RAM, which does not caption"):
        open_captioner(folder)
    with pytest.raises(CaptionError, match="no captioner 'ram'"):
        open_captioner("ram")
    for beam in (0, -2):
        with pytest.raises(CaptionError, match="1 or more"):
            caption(sample_photographs()[0], system=captioner(), beam=beam)


def test_an_encoders_name_may_tell_the_side_of_its_pictures() -> None:
    picture = Image.open(sample_photographs()[0]).convert("RGB")
    named, given_side = open_encoder("efficientnet_lite0@96"), open_encoder("efficientnet_lite0", 96)
    assert (named.name, named.side) == (given_side.name, given_side.side) == ("efficientnet_lite0", 96)
    pixels = squashed(picture, 96)[None]
    assert named(pixels).shape == (1, 1280, 3, 3)
    assert torch.equal(named(pixels), given_side(pixels))
    earlier = open_encoder("efficientnet_lite0:11@96")
    assert (earlier.blocks, earlier.side) == (11, 96)
    assert earlier(pixels).shape[2:] == (6, 6)  # cells half as wide
    with pytest.raises(ValueError, match="no bundled encoder"):
        open_encoder("efficientnet_lite0:last@96")
