"""`look`: the map, its sentence and its files, on tiny models of several kinds."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sightline.data.photographs import PhotographError, sample_photographs
from sightline.tasks.classify import classify
from sightline.tasks.look import best_labels, concentration, describe, look, peak
from sightline.tasks.methods import METHODS
from sightline.tasks.vision_model import ModelError, open_vision_model

Save = Callable[[str], Path]
CAT = sample_photographs()[0]


@pytest.mark.parametrize("method", METHODS)
def test_every_method(save_tiny: Save, method: str) -> None:
    seen = look(CAT, model=save_tiny("vit"), method=method)
    assert seen.heat.shape == (4, 4)
    assert (seen.heat >= 0).all()
    assert seen.method == ("rollout" if method == "auto" else method)
    assert seen.labels is not None
    assert {name for name, _ in seen.labels} == {"cat", "cup", "rocket"}
    assert seen.overlay.width > 300
    assert seen.title == CAT.name


def test_raw_is_the_class_row_of_eager_attention(save_tiny: Save) -> None:
    from transformers import ViTForImageClassification

    opened = open_vision_model(save_tiny("vit"))
    eager = ViTForImageClassification.from_pretrained(save_tiny("vit"), attn_implementation="eager").eval()
    with torch.no_grad():
        layers = eager(opened.prepare(Image.open(CAT).convert("RGB"))[0], output_attentions=True).attentions
    for layer in (0, 1):
        mean = look(CAT, model=opened, method="raw", layer=layer)
        assert torch.allclose(mean.heat.flatten(), layers[layer][0, :, 0, 1:].mean(0), atol=1e-5)
        patch = look(CAT, model=opened, method="raw", layer=layer, head=2, query=(1, 3))
        assert torch.allclose(patch.heat.flatten(), layers[layer][0, 2, 1 + 7, 1:], atol=1e-5)
        assert (mean.part, patch.part) == (f"layer {layer}", f"layer {layer}, head 2")


def test_rollout_is_that_of_eager_attention(save_tiny: Save) -> None:
    from transformers import ViTForImageClassification

    opened = open_vision_model(save_tiny("vit"))
    eager = ViTForImageClassification.from_pretrained(save_tiny("vit"), attn_implementation="eager").eval()
    with torch.no_grad():
        layers = eager(opened.prepare(Image.open(CAT).convert("RGB"))[0], output_attentions=True).attentions
    rolled = torch.eye(17)
    for weights in layers:
        rolled = (weights[0].mean(0) + torch.eye(17)) / 2 @ rolled
    assert torch.allclose(look(CAT, model=opened).heat.flatten(), rolled[0, 1:], atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "grid", "method"),
    [
        ("headless vit", (4, 4), "rollout"),
        ("dinov2", (4, 4), "rollout"),
        ("clip", (4, 4), "rollout"),
        ("siglip", (4, 4), "raw"),
        ("swin", (8, 8), "raw"),
    ],
)
def test_other_architectures(save_tiny: Save, kind: str, grid: tuple[int, int], method: str, tmp_path: Path) -> None:
    seen = look(CAT, model=save_tiny(kind))
    assert tuple(seen.heat.shape) == grid
    assert seen.method == method
    assert (seen.labels is not None) == (kind == "swin")
    assert seen.save(tmp_path / "a.html").stat().st_size > 10_000


def test_every_source_of_a_picture_gives_the_same_map(save_tiny: Save) -> None:
    opened = open_vision_model(save_tiny("vit"))
    picture = Image.open(CAT).convert("RGB")
    array = np.asarray(picture)
    wanted = look(CAT, model=opened).heat
    for source in (str(CAT), picture, array, torch.from_numpy(array.copy()).permute(2, 0, 1)):
        assert torch.equal(look(source, model=opened).heat, wanted)


def test_a_module_keeps_its_mode_and_its_gradients(save_tiny: Save) -> None:
    from transformers import ViTForImageClassification

    module = ViTForImageClassification.from_pretrained(save_tiny("vit")).train()
    module.vit.layers[0].eval()  # a frozen part stays frozen
    modes = [part.training for part in module.modules()]
    look(CAT, model=module, method="gradient")
    classify(CAT, model=module)
    assert [part.training for part in module.modules()] == modes
    assert len(set(modes)) == 2
    assert all(p.requires_grad and p.grad is None for p in module.parameters())


def test_the_check_names_its_class_and_reaches_the_page(save_tiny: Save, tmp_path: Path) -> None:
    seen = look(CAT, model=save_tiny("vit"), check=True)
    assert seen.labels is not None
    best, chance = seen.labels[0]
    told = seen.summary["check"]
    assert told["measure"] == f"probability of {best}"
    assert told["effect"]["whole"] == pytest.approx(chance, abs=1e-4)
    assert 0 < told["effect"]["area"] < 1
    assert set(told["auc"]) == {p + n for n in ("deletion", "insertion") for p in ("", "random_", "centre_")}
    assert told["verdict"] in told["summary"]
    assert told["verdict"][:40] in seen.save(tmp_path / "a.html").read_text("utf-8")
    assert look(CAT, model=save_tiny("headless vit"), check=True).summary["check"]["measure"]


def test_the_picture_tells_the_verdict_or_how_to_get_one(save_tiny: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    from sightline.lens import view

    notes: list[str] = []
    drawn = view.overlay
    monkeypatch.setattr(view, "overlay", lambda *given, note, **more: notes.append(note) or drawn(*given, **more))
    seen = look(CAT, model=save_tiny("vit"), method="rollout", check=True)
    look(CAT, model=save_tiny("vit"), method="rollout")
    assert notes == [f"The check: {seen.check.verdict}.", "sightline look --check measures its effect."]


def test_files_and_notebook(save_tiny: Save, tmp_path: Path) -> None:
    seen = look(CAT, model=save_tiny("vit"))
    with Image.open(seen.save(tmp_path / "new" / "a.png")) as drawn:
        assert drawn.size == seen.overlay.size
    page = seen.save(tmp_path / "a.html").read_text("utf-8")
    assert "rocket" in page
    assert f"{seen.method}, as in the picture" in page
    assert not re.search(r"""(?:src|href)=["']?https?:""", page)
    assert "data:image/png;base64," in seen._repr_html_()
    assert seen.sentence.split(". Answer")[0].rstrip(".") in seen._repr_html_()
    assert CAT.name in repr(seen)
    with pytest.raises(ValueError, match=r"\.png, \.jpg"):
        seen.save(tmp_path / "a.txt")


def test_what_cannot_be_looked_at(save_tiny: Save, tmp_path: Path) -> None:
    vit = save_tiny("vit")
    for error, said, image, choices in [
        (PhotographError, "no such file", tmp_path / "none.jpg", {}),
        (ValueError, "method 'x'", CAT, {"method": "x"}),
        (ValueError, "layer 5", CAT, {"layer": 5, "method": "raw"}),
        (ValueError, "query", CAT, {"query": "sky"}),
        (ValueError, "limit|bytes", CAT, {"limit": 100}),
        (ValueError, "class scores", CAT, {"model": save_tiny("headless vit"), "method": "gradient"}),
        (ValueError, "no class token", CAT, {"model": save_tiny("siglip"), "query": "class"}),
        (ModelError, "no bundled name", CAT, {"model": "none-such"}),
    ]:
        with pytest.raises(error, match=said):
            look(image, **{"model": vit, **choices})  # type: ignore[arg-type]


def test_classify(save_tiny: Save) -> None:
    labels = classify(CAT, model=save_tiny("vit"), top=2)
    assert len(labels) == 2
    assert labels[0][1] >= labels[1][1]
    seen = look(CAT, model=save_tiny("vit"))
    assert seen.labels is not None
    assert [name for name, _ in labels] == [name for name, _ in seen.labels[:2]]
    with pytest.raises(ModelError, match="no named classes"):
        classify(CAT, model=save_tiny("headless vit"))
    with pytest.raises(ValueError, match="top"):
        classify(CAT, model=save_tiny("vit"), top=0)


def test_labels_are_softmax_with_their_own_names() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0]])
    wanted = logits[0].softmax(-1)
    labels = best_labels(logits, ("a", "b", "c"), top=2)
    assert labels is not None
    assert [name for name, _ in labels] == ["b", "c"]
    assert labels[0][1] == pytest.approx(wanted[1].item(), abs=1e-6)
    assert best_labels(logits, ("a", "b")) is None
    assert best_labels(None, ("a", "b", "c")) is None


@given(height=st.integers(1, 20), width=st.integers(1, 20), seed=st.integers(0, 99))
def test_concentration_and_peak(height: int, width: int, seed: int) -> None:
    heat = torch.rand(height, width, generator=torch.Generator().manual_seed(seed))
    share, area = concentration(heat)
    count = -(-height * width // 10)
    best = sorted(heat.flatten().tolist(), reverse=True)[:count]
    assert area == pytest.approx(count / (height * width))
    assert share == pytest.approx(sum(best) / heat.sum().item(), rel=1e-4)
    assert share >= area - 1e-6
    row, column = peak(heat)
    assert heat[row, column] == heat.max()
    assert describe(heat).endswith(".")


def test_the_sentence_says_where_and_claims_no_more() -> None:
    even = torch.ones(10, 10)
    assert "almost evenly" in describe(even)
    assert concentration(torch.zeros(10, 10)) == (0.1, 0.1)
    for place, said in [
        ((0, 0), "upper left"),
        ((0, 5), "at the top"),
        ((5, 9), "at the right"),
        ((5, 5), "in the middle"),
        ((9, 5), "at the bottom"),
        ((9, 9), "lower right"),
    ]:
        heat = torch.full((10, 10), 0.01)
        heat[place] = 1.0
        assert said in describe(heat)
        assert "10% of the picture holds" in describe(heat)
