"""The page of a recording: which maps, rows, checks and words reach it, and that they are the recording's own."""

import base64
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers as tf
from PIL import Image
from torch import nn

import sightline
from sightline.lens import Recording, report
from sightline.lens.page import PageData
from sightline.lens.report import write_report

SIZES = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
PHOTOGRAPH = Image.new("RGB", (64, 48), (120, 90, 60))


def recorded(build=tf.ViTForImageClassification, config=None, pixels=None, **choices) -> tuple[Recording, object]:
    torch.manual_seed(0)
    model = build(config or tf.ViTConfig(**SIZES, num_labels=5)).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.25)
    pixels = torch.randn(2, 3, 32, 32) if pixels is None else pixels
    with sightline.record(model, **choices) as seen:
        out = model(pixels)
    return seen, out


@pytest.fixture
def gathered(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What `write_report` hands to the page, beside the page that it writes."""
    kept = SimpleNamespace()
    write = report.write_page

    def keep(path: str | Path, data: PageData) -> Path:
        kept.data = data
        return write(path, data)

    monkeypatch.setattr(report, "write_page", keep)
    return kept


def test_page_holds_the_recording_s_maps_and_rows(gathered: SimpleNamespace, tmp_path: Path) -> None:
    seen, _ = recorded()
    path = write_report(seen, tmp_path / "page.html", PHOTOGRAPH, title="Two mugs", command="look mugs.jpg", item=1)
    page = gathered.data
    assert path == tmp_path / "page.html"
    assert path.stat().st_size > 10_000
    assert (page.title, page.model, page.command) == ("Two mugs", "ViTForImageClassification", "look mugs.jpg")
    assert page.versions["torch"] == torch.__version__
    for site, shown in zip(seen, page.sites, strict=True):
        assert (shown.name, shown.kind, shown.heads, shown.keys) == (site.name, "self", 4, 17)
        assert shown.query == "class token"
        assert shown.outside == ("class",)
        np.testing.assert_allclose(shown.maps, site.weights[1, :, 0, 1:].view(4, 4, 4), atol=1e-6)
        np.testing.assert_allclose(shown.patch_rows, site.weights[1].mean(0)[1:, 1:], atol=1e-6)
    assert list(page.combined) == ["rollout"]
    np.testing.assert_allclose(page.combined["rollout"], seen.heat(method="rollout", item=1), atol=1e-6)
    assert page.curves == []


def test_a_score_adds_the_gradient_maps(gathered: SimpleNamespace, tmp_path: Path) -> None:
    seen, out = recorded(gradients=True)
    write_report(seen, tmp_path / "page.html", PHOTOGRAPH, score=out.logits[0, 2])
    assert list(gathered.data.combined) == ["rollout", "gradient-weighted", "gradient rollout"]
    expected = seen.heat(method="grad_rollout", score=out.logits[0, 2])
    np.testing.assert_allclose(gathered.data.combined["gradient rollout"], expected, atol=1e-7)


def test_a_page_opens_on_the_map_that_is_shown_elsewhere_and_has_it_once(
    gathered: SimpleNamespace, tmp_path: Path
) -> None:
    seen, _ = recorded()
    for method, others in (("raw", ["rollout"]), ("rollout", [])):
        drawn = seen.heat(method=method)
        seen.to_html(tmp_path / "page.html", PHOTOGRAPH, shown=("in the picture", drawn))
        assert list(gathered.data.combined) == ["in the picture", *others]
        np.testing.assert_array_equal(gathered.data.combined["in the picture"], drawn)


def test_a_page_opens_on_the_layer_and_head_that_were_chosen_where_it_has_their_map(
    gathered: SimpleNamespace, tmp_path: Path
) -> None:
    seen, _ = recorded()
    for chosen, opens in (((0, 3), (0, 3)), ((-2, -1), (0, 3)), ((1, "mean"), (1, "mean")), ((1, "max"), (1, "max"))):
        drawn = seen.heat(method="raw", layer=chosen[0], head=chosen[1])
        seen.to_html(tmp_path / "page.html", PHOTOGRAPH, shown=("raw", drawn), chosen=chosen)
        assert gathered.data.opens == opens
    other = seen.heat(method="raw", layer=0, head=3, query=(1, 2))  # a patch's map, which the controls do not stand for
    seen.to_html(tmp_path / "page.html", PHOTOGRAPH, shown=("raw", other), chosen=(0, 3))
    assert gathered.data.opens is None
    least = seen.heat(method="raw", head="min")
    seen.to_html(tmp_path / "page.html", PHOTOGRAPH, shown=("raw", least), chosen=(-1, "min"))
    assert gathered.data.opens is None


def test_the_check_of_this_image_is_shown_and_not_that_of_another(gathered: SimpleNamespace, tmp_path: Path) -> None:
    seen, _ = recorded()
    found = seen.check(seeds=2, steps=3, item=1)
    seen.to_html(tmp_path / "page.html", PHOTOGRAPH, item=0)
    assert gathered.data.curves == []
    seen.to_html(tmp_path / "page.html", PHOTOGRAPH, item=1, answers=[("mug", 0.9)], notes=["Cropped."])
    assert [curve.group for curve in gathered.data.curves] == ["deletion"] * 3 + ["insertion"] * 3
    assert gathered.data.findings == [found.effect.summary(), found.curves.summary()]
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "mug" in text
    assert "Cropped." in text


def test_class_rows_alone_give_maps_without_rows(gathered: SimpleNamespace, tmp_path: Path) -> None:
    seen, _ = recorded(queries=sightline.CLS)
    write_report(seen, tmp_path / "page.html", PHOTOGRAPH)
    assert gathered.data.combined == {}
    assert all(site.patch_rows is None and site.maps is not None for site in gathered.data.sites)
    other, _ = recorded(queries=5)
    write_report(other, tmp_path / "other.html", PHOTOGRAPH)
    assert all(site.maps is None for site in gathered.data.sites)


def test_no_class_token_windows_and_video(gathered: SimpleNamespace, tmp_path: Path) -> None:
    seen, _ = recorded(tf.SiglipVisionModel, tf.SiglipVisionConfig(**SIZES))
    write_report(seen, tmp_path / "page.html", PHOTOGRAPH)
    assert [site.query for site in gathered.data.sites] == ["all tokens, averaged"] * 3
    np.testing.assert_allclose(gathered.data.sites[0].maps, seen[0].weights[0].mean(1).view(4, 4, 4), atol=1e-6)
    windowed = tf.SwinConfig(image_size=32, patch_size=4, embed_dim=8, depths=[2, 1], num_heads=[2, 2], window_size=4)
    seen, _ = recorded(tf.SwinModel, windowed)
    write_report(seen, tmp_path / "page.html", PHOTOGRAPH)
    assert [site.grid for site in gathered.data.sites] == [(8, 8), (8, 8), (4, 4)]
    np.testing.assert_allclose(gathered.data.sites[1].patch_rows, seen[1].weights[0].mean(0), atol=1e-6)
    clip = tf.VideoMAEConfig(**SIZES, num_frames=4, tubelet_size=2)
    seen, _ = recorded(tf.VideoMAEModel, clip, torch.randn(1, 4, 3, 32, 32))
    write_report(seen, tmp_path / "page.html", PHOTOGRAPH)
    assert gathered.data.sites[0].maps.shape == (4, 4, 4)
    assert gathered.data.sites[0].patch_rows is None


def test_the_written_page_needs_nothing_else_and_carries_the_photograph(tmp_path: Path) -> None:
    seen, _ = recorded()
    text = write_report(seen, tmp_path / "page.html", PHOTOGRAPH, title="<script>alert(1)</script>").read_text("utf-8")
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", text)
    assert "<script>alert(1)" not in text
    embedded = re.search(r"data:image/(?:png|jpeg|webp);base64,([A-Za-z0-9+/=]+)", text)
    assert embedded
    assert len(base64.b64decode(embedded[1])) > 100
    for site in seen:
        assert json.dumps(site.name)[1:-1] in text


def test_text_cannot_be_put_on_a_page(tmp_path: Path) -> None:
    model = nn.TransformerEncoderLayer(16, 2, 16, batch_first=True).eval()
    with sightline.record(model) as seen:
        model(torch.randn(1, 5, 16))
    with pytest.raises(ValueError, match="no attention site of TransformerEncoderLayer lies on an image"):
        write_report(seen, tmp_path / "page.html", PHOTOGRAPH)
    assert not (tmp_path / "page.html").exists()
