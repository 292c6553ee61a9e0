"""Models from every kind of name, each with its own preprocessing, and the part of the picture that it sees."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sightline.checkpoints.bundled import bundled_folder
from sightline.tasks.vision_model import ModelError, VisionModel, open_vision_model, plain_prepare, seen_box

Save = Callable[[str], Path]


def photograph(size: tuple[int, int] = (120, 80)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


@pytest.mark.parametrize("kind", ["vit", "headless vit", "dinov2", "swin", "clip", "siglip"])
def test_folders_of_transformers(save_tiny: Save, kind: str) -> None:
    opened = open_vision_model(str(save_tiny(kind)))
    pixels, seen = opened.prepare(photograph())
    assert pixels.shape == (1, 3, 32, 32)
    assert not opened.model.training
    assert not any(p.requires_grad for p in opened.model.parameters())
    assert opened.names == (("cat", "cup", "rocket") if kind in ("vit", "swin") else None)
    with torch.no_grad():
        opened.model(pixels)
    cropped = kind in ("dinov2", "clip")
    assert seen.size == ((64, 64) if cropped else (120, 80))


def test_a_model_of_text_and_image_is_looked_through_its_image_part(save_tiny: Save) -> None:
    opened = open_vision_model(save_tiny("clip"))
    assert "vision_model" in opened.note
    assert not any(name.startswith("text") for name, _ in opened.model.named_parameters())


def test_pixels_are_those_of_the_published_processor(save_tiny: Save) -> None:
    folder = save_tiny("vit")
    pixels, _ = open_vision_model(folder).prepare(photograph())
    same = plain_prepare((32, 32), (0.5,) * 3, (0.5,) * 3, Image.Resampling.BILINEAR)
    assert torch.allclose(pixels, same(photograph())[0], atol=1e-5)


def test_the_crop_shown_is_the_crop_seen(save_tiny: Save) -> None:
    """The pixels of the whole picture equal those of the shown part squeezed into the model's input."""
    opened = open_vision_model(save_tiny("dinov2"))
    smooth = Image.effect_noise((6, 4), 200).resize((480, 320), Image.Resampling.BICUBIC).convert("RGB")
    pixels, seen = opened.prepare(smooth)
    squeezed = plain_prepare((32, 32))(seen)[0]
    assert torch.corrcoef(torch.stack([pixels.flatten(), squeezed.flatten()]))[0, 1] > 0.99


@given(width=st.integers(1, 3000), height=st.integers(1, 3000))
def test_seen_box_lies_in_the_middle(width: int, height: int) -> None:
    class Processor:
        do_resize, do_center_crop = True, True
        size, crop_size = {"shortest_edge": 256}, {"height": 224, "width": 224}

    left, top, right, bottom = seen_box((width, height), Processor())
    short = min(width, height)
    assert abs((right - left) - 224 / 256 * short) <= 1
    assert abs((bottom - top) - 224 / 256 * short) <= 1
    assert abs((left + right) - width) <= 1
    assert abs((top + bottom) - height) <= 1


def test_seen_box_refuses_what_it_does_not_know() -> None:
    class Processor:
        size, crop_size = {"longest_edge": 256}, {"height": 224, "width": 224}

    with pytest.raises(ModelError, match="longest_edge"):
        seen_box((10, 10), Processor())


def test_a_module_is_taken_as_it_is(save_tiny: Save) -> None:
    module = open_vision_model(save_tiny("vit")).model
    opened = open_vision_model(module)
    assert opened.model is module
    assert opened.prepare(photograph())[0].shape == (1, 3, 32, 32)
    assert "assumed" in opened.note
    assert open_vision_model(opened) is opened
    own = open_vision_model(module, prepare=plain_prepare((32, 48)))
    assert own.prepare(photograph())[0].shape == (1, 3, 32, 48)
    assert own.note == ""


def test_own_weights_with_their_card(tmp_path: Path) -> None:
    from sightline.systems.vit import VisionTransformer

    torch.manual_seed(0)
    system = VisionTransformer(image_size=32, patch=8, dim=24, depth=2, heads=3, classes=2)
    run = tmp_path / "run"
    system.save_pretrained(run / "weights")
    card = {"image_size": 32, "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5], "classes": ["a", "b"]}
    (run / "weights" / "card.json").write_text(json.dumps(card))
    for spec in (run, run / "weights"):
        opened = open_vision_model(spec)
        assert opened.names == ("a", "b")
        pixels, _ = opened.prepare(Image.new("RGB", (40, 30)))
        assert torch.allclose(pixels[0, :, 0, 0], torch.tensor([-0.2, -0.4, -0.6]), atol=1e-6)
        with torch.no_grad():
            assert torch.allclose(opened.model(pixels), system.eval()(pixels), atol=1e-6)


def test_the_bundled_models_open() -> None:
    opened = open_vision_model("vit")
    pixels, _ = opened.prepare(photograph())
    with torch.no_grad():
        scores = opened.model(pixels)
    assert opened.names is not None
    assert scores.shape == (1, len(opened.names))


def test_a_folder_of_a_bundled_name_counts_where_it_holds_weights(
    tmp_path: Path, save_tiny: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results may lie in a folder that is called as the model was."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vit").mkdir()
    (tmp_path / "vit" / "cat.look.png").write_bytes(b"")
    for spec in (None, "vit"):
        assert open_vision_model(spec).names is not None
    own = save_tiny("vit")
    shutil.copytree(own, tmp_path / "vit", dirs_exist_ok=True)
    assert type(open_vision_model("vit").model) is type(open_vision_model(str(own)).model)
    assert type(open_vision_model("vit").model).__module__.startswith("transformers")


_OTHERS = {"transformer": "translate", "seq2seq": "translate", "show_attend_tell": "caption", "visual7w": "ask"}


@pytest.mark.parametrize(("system", "verb"), [*_OTHERS.items(), ("ram", "glimpse")])
def test_folders_of_other_systems_are_refused(system: str, verb: str, tmp_path: Path) -> None:
    folder = tmp_path / "run" / "weights"
    shutil.copytree(bundled_folder(system), folder)
    with pytest.raises(ModelError, match=f"it is asked by `sightline {verb}`"):
        open_vision_model(folder.parent)


@pytest.mark.parametrize("system", _OTHERS)
def test_weights_that_take_more_than_a_picture_are_refused_without_a_card_too(system: str, tmp_path: Path) -> None:
    shutil.copytree(bundled_folder(system), tmp_path / "own", ignore=shutil.ignore_patterns("card.json"))
    with pytest.raises(ModelError, match=r"takes .*, not a picture alone"):
        open_vision_model(tmp_path / "own")


def test_a_card_that_is_none_is_told_by_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    shutil.copytree(bundled_folder("vit"), folder)
    for text, said in (("[]", r"card.json holds a list, no card"), ("{", r"card.json is no JSON")):
        (folder / "card.json").write_text(text, "utf-8")
        with pytest.raises(ModelError, match=said):
            open_vision_model(folder)


def test_specs_that_name_no_model(tmp_path: Path, save_tiny: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "config.json").write_text("not json")
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "config.json").write_text('{"model_type": "no-such-architecture"}')
    (tmp_path / "w.safetensors").write_bytes(b"broken")
    headless = tmp_path / "lost"
    shutil.copytree(save_tiny("vit"), headless)
    from safetensors.torch import load_file, save_file

    weights = load_file(headless / "model.safetensors")
    dropped = next(name for name in weights if "layers.1" in name or "layer.1" in name)
    save_file({k: v for k, v in weights.items() if k != dropped}, headless / "model.safetensors", {"format": "pt"})
    for name, own in (("alone", bundled_folder("vit")), ("headed", save_tiny("vit"))):  # copied without their config
        (tmp_path / name).mkdir()
        shutil.copy(own / "model.safetensors", tmp_path / name)
    for spec, said in [
        (
            str(tmp_path / "alone"),
            r"no known source, and no config.json lies beside them; put the one .* there$",
        ),
        (str(tmp_path / "headed"), r"number of heads, and no config.json lies beside them; put the one .* there$"),
        (str(tmp_path / "empty"), "empty"),
        (str(tmp_path / "text"), "not JSON"),
        (str(tmp_path / "strange"), "transformers cannot open it"),
        (str(tmp_path / "w.safetensors"), "w.safetensors"),
        (str(headless), "lack 1 tensors"),
        (str(save_tiny("bert")), "not a picture"),
        ("no-such-name", "no bundled name"),
        ("no-such-owner-xyz/no-such-model-xyz", "hub cannot be reached"),
        (3, "int"),
    ]:
        with pytest.raises(ModelError, match=said) as caught:
            open_vision_model(spec)
        assert "\n" not in str(caught.value)


def test_a_hub_id_in_the_cache_needs_no_network(
    tmp_path: Path, save_tiny: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / "models--owner--tiny" / "snapshots" / "abc"
    shutil.copytree(save_tiny("vit"), snapshot)
    (tmp_path / "models--owner--tiny" / "refs").mkdir()
    (tmp_path / "models--owner--tiny" / "refs" / "main").write_text("abc")
    from huggingface_hub import try_to_load_from_cache

    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache",
        lambda name, file: try_to_load_from_cache(name, file, cache_dir=tmp_path),
    )
    monkeypatch.setattr("socket.create_connection", lambda *_, **__: pytest.fail("asked the network"))
    opened = open_vision_model("owner/tiny")
    assert opened.name == "owner/tiny"
    assert opened.names == ("cat", "cup", "rocket")


def test_weights_without_their_head_give_no_classes(tmp_path: Path, save_tiny: Save) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "vit"
    shutil.copytree(save_tiny("vit"), folder)
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith("classifier")}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    opened = open_vision_model(folder)
    assert opened.names is None
    assert "classifier" in opened.note


def test_what_it_is_stays_plain() -> None:
    with pytest.raises(AttributeError):
        VisionModel("x", torch.nn.Identity(), plain_prepare((2, 2))).name = "y"  # type: ignore[misc]
