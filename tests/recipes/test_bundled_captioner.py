"""The captioner in the package is the one that its card describes."""

from pathlib import Path

import pytest
import torch

from sightline.checkpoints.bundled import bundled_card, bundled_folder
from sightline.data.captions import open_captions
from sightline.data.photographs import sample_photographs
from sightline.metrics.captions import bleu
from sightline.recipes import show_attend_tell
from sightline.tasks.caption import caption, open_captioner


@pytest.mark.parametrize("name", ["efficientnet_lite0", "show_attend_tell"])
def test_the_weights_are_small_and_the_card_fits_them(name: str) -> None:
    from sightline.checkpoints.bundled import bundled

    network, card = bundled(name), bundled_card(name)
    assert sum(p.numel() for p in network.parameters()) == card["parameters"]
    assert sum(file.stat().st_size for file in bundled_folder(name).iterdir()) < 8e6
    assert all(torch.isfinite(p).all() for p in network.parameters())


def test_the_samples_are_captioned_each_in_its_own_words() -> None:
    opened = open_captioner()
    assert len(opened.vocabulary) == bundled_card("show_attend_tell")["vocabulary"]
    said = [caption(path, system=opened) for path in sample_photographs()]
    assert len({one.text for one in said}) == 3
    for one in said:
        assert one.attention is not None
        assert len(one.words) >= 4


def test_it_can_be_measured_again_with_the_settings_of_its_card() -> None:
    card = bundled_card("show_attend_tell")
    settings = show_attend_tell.Settings(**card["settings"])
    assert (settings.beam, settings.penalty) == (card["measured"]["beam"], open_captioner().penalty)


def test_it_is_about_as_good_as_its_card_says(shared: Path) -> None:
    held = open_captions(f"flickr8k:{shared / 'data' / 'flickr8k'}", "val")
    opened, chosen = open_captioner(), range(0, 1000, 16)  # 63 photographs
    said = [caption(held.path(number), system=opened).text for number in chosen]
    found = bleu(said, [held.captions[number] for number in chosen])
    measured = bundled_card("show_attend_tell")["measured"]
    assert abs(found[0] - measured["bleu1"]) < 0.08
    assert abs(found[3] - measured["bleu4"]) < 0.09
    other = bleu(said, [held.captions[(number + 500) % 1000] for number in chosen])
    assert found[3] > 1.8 * other[3]
