from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sightline.data.photographs import sample_photographs
from sightline.tasks.classify import Classification, classify
from sightline.tasks.look import Look

Save = Callable[[str], Path]
CAT = sample_photographs()[0]


@pytest.fixture
def named(save_tiny: Save) -> Classification:
    return classify(CAT, model=save_tiny("vit"), top=2)


def test_the_result_is_its_pairs_best_first(named: Classification) -> None:
    assert len(named) == 2
    assert list(named) == list(named.labels)
    assert (named.label, named.probability) == named[0]
    assert named[0][1] >= named[1][1] > 0
    assert named.label in str(named)


def test_probabilities_are_the_models_own(named: Classification) -> None:
    pixels, _ = named.model.prepare(named.image)
    with torch.no_grad():
        chances = named.model.model(pixels).logits[0].softmax(-1)
    assert named.probability == pytest.approx(chances.max().item(), abs=1e-5)


def test_attention_comes_with_the_answer(named: Classification, tmp_path: Path) -> None:
    assert isinstance(named.attention, Look)
    assert named.attention is named.attention
    assert named.attention.labels is not None
    assert named.attention.labels[0] == named.labels[0]
    with Image.open(named.save(tmp_path / "cat.png")) as saved:
        assert saved.size == named.attention.overlay.size
    assert named.label in named._repr_html_()


def test_names_are_read_with_spaces_and_kept_raw(named: Classification) -> None:
    renamed = replace(named, labels=(("golden_retriever", 0.75), ("cup", 0.25)))
    assert str(renamed) == "golden retriever 75.0%, cup 25.0%"
    assert "<td>golden retriever</td>" in renamed._repr_html_()
    assert renamed.label == "golden_retriever"


def test_a_top_beyond_the_classes_gives_them_all(save_tiny: Save) -> None:
    everything = classify(CAT, model=save_tiny("vit"), top=99)
    assert len(everything) == 3
    assert sum(chance for _, chance in everything) == pytest.approx(1, abs=1e-4)


def test_any_form_of_the_same_picture_is_called_the_same(save_tiny: Save) -> None:
    model, picture = save_tiny("vit"), Image.open(CAT)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    forms = [classify(form, model=model).labels for form in (CAT, str(CAT), picture, pixels)]
    assert all(form == forms[0] for form in forms)
