"""Files that are broken, hostile, absent or elsewhere: one clear line each, and no code is run."""

import argparse
import io
import json
import os
import pickle
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

import sightline
from sightline.checkpoints import bundled, bundled_card, bundled_names
from sightline.checkpoints.read import read
from sightline.systems.dinov2 import DINOv2
from sightline.systems.vit import VisionTransformer

UNHURRIED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]  # each example writes its file anew
STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(1)}


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.mark),)


def small(**more: object) -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(
        **{"image_size": (16, 24), "patch": 8, "dim": 16, "depth": 1, "heads": 2, "classes": 3, **more}
    ).eval()


def write(path: Path, how: str) -> Path:
    if how == "safetensors":
        save_file(STATE, path)
    elif how == "npz":
        with path.open("wb") as opened:
            np.savez(opened, **{name: value.numpy() for name, value in STATE.items()})
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=how == "torch")
    return path


FORMATS = {"safetensors": ".safetensors", "npz": ".npz", "torch": ".pth", "old torch": ".bin"}


@pytest.mark.parametrize("how", list(FORMATS))
def test_every_format_gives_the_same_tensors(tmp_path: Path, how: str) -> None:
    state = read(write(tmp_path / f"weights{FORMATS[how]}", how)).state
    assert state.keys() == STATE.keys()
    assert all(torch.equal(value, STATE[name]) for name, value in state.items())


@settings(deadline=None, max_examples=60, suppress_health_check=UNHURRIED)
@given(how=st.sampled_from(list(FORMATS)), part=st.floats(0, 0.999), noise=st.binary(max_size=40))
def test_files_cut_short_or_altered_are_one_clear_line(tmp_path: Path, how: str, part: float, noise: bytes) -> None:
    path = write(tmp_path / f"weights{FORMATS[how]}", how)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)] + noise)
    message = ""
    try:
        state = read(path).state
    except ValueError as error:
        message, state = str(error), {}
    # it is either refused in one line, or what was cut away was not needed
    assert state or str(path) in message
    assert "\n" not in message
    for name, value in state.items():
        assert value.shape == STATE[name].shape
        # these two have no checksum, so noise that fills the file to its old length is read as numbers
        assert torch.equal(value, STATE[name]) or (how in ("safetensors", "old torch") and noise)


@settings(deadline=None, max_examples=40, suppress_health_check=UNHURRIED)
@given(suffix=st.sampled_from([".safetensors", ".npz", ".pth"]), content=st.binary(max_size=200))
def test_any_bytes_are_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"weights\."):
        read(path)


@pytest.mark.parametrize("how", ["torch", "old torch", "pickle", "npz", "module", "script"])
def test_objects_are_refused_and_never_run(tmp_path: Path, how: str) -> None:
    mark = tmp_path / "exploded"
    path = tmp_path / ("weights.npz" if how == "npz" else "weights.pth")
    if how == "pickle":
        path.write_bytes(pickle.dumps({"a": Bomb(mark)}))
    elif how == "npz":
        np.savez(path, a=np.array([Bomb(mark)], dtype=object))
    elif how == "module":
        torch.save(nn.Linear(2, 2), path)
    elif how == "script":
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)
    else:
        torch.save({"a": Bomb(mark)}, path, _use_new_zipfile_serialization=how == "torch")
    with pytest.raises(ValueError, match=r"never unpickled here.*save|not run here: save") as caught:
        read(path)
    assert not mark.exists()
    assert "\n" not in str(caught.value)
    if how == "pickle":  # the bomb works: it is the reader that does not set it off
        pickle.loads(path.read_bytes())
        assert mark.exists()


def test_an_array_that_claims_to_be_huge_is_refused(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**15,)})
    with zipfile.ZipFile(tmp_path / "weights.npz", "w") as packed:
        packed.writestr("a.npy", header.getvalue() + b"1234")
    with pytest.raises(ValueError, match=r"cannot be read as \.npz"):
        read(tmp_path / "weights.npz")


def test_wrappers_and_prefixes_are_taken_off(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    inner = {f"module.{name}": value for name, value in STATE.items()}
    torch.save({"epoch": 3, "args": argparse.Namespace(lr=1.0), "state_dict": {"model": inner}}, path)
    assert read(path).state.keys() == STATE.keys()
    torch.save({"student": {"s": torch.ones(1)}, "teacher": {"t": torch.ones(1)}}, path)
    assert list(read(path).state) == ["t"]


def test_halves_become_floats_and_integers_stay(tmp_path: Path) -> None:
    save_file(
        {"half": torch.ones(2).half(), "brain": torch.ones(2).bfloat16(), "count": torch.ones(2).long()},
        tmp_path / "weights.safetensors",
    )
    state = read(tmp_path / "weights.safetensors").state
    assert [state[name].dtype for name in ("half", "brain", "count")] == [torch.float32, torch.float32, torch.int64]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": torch.ones(1), "epoch": 3}, "no tensors: epoch"),
        ({}, "holds no tensors"),
        ([torch.ones(1)], "holds a list"),
        (torch.ones(1), "holds a Tensor"),
        ({3: torch.ones(1)}, "no tensors: 3"),
    ],
)
def test_what_is_no_state_dict_is_refused(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "weights.pt")


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no weights in"):
        read(tmp_path)
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    write(tmp_path / "first.safetensors", "safetensors")
    with pytest.raises(ValueError, match="not readable JSON"):
        read(tmp_path)
    (tmp_path / "config.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(ValueError, match="JSON object, found list"):
        read(tmp_path)
    (tmp_path / "config.json").write_text('{"a": 1}', encoding="utf-8")
    assert read(tmp_path).config == {"a": 1}
    write(tmp_path / "second.pth", "torch")
    with pytest.raises(ValueError, match="several weight files"):
        read(tmp_path)
    with pytest.raises(ValueError, match="is no weight file"):
        read(tmp_path / "config.json")


@pytest.mark.parametrize("name", ["../outside.safetensors", "absent.safetensors"])
def test_an_index_stays_in_its_folder(tmp_path: Path, name: str) -> None:
    write(tmp_path / "outside.safetensors", "safetensors")
    folder = tmp_path / "inside"
    folder.mkdir()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"b": name}}))
    with pytest.raises(ValueError, match="not a file beside it"):
        read(folder)
    (folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ValueError, match="weight_map"):
        read(folder)


@pytest.mark.parametrize("name", ["nowhere.safetensors", "a/b/c", "/nowhere/at/all", "two words"])
def test_an_absent_path_says_so(name: str) -> None:
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        sightline.load_checkpoint(name)


def test_hub_ids_are_read_from_the_cache_when_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="'someone/absent' is neither a file") as caught:
        sightline.load_checkpoint("someone/absent")
    assert "\n" not in str(caught.value)
    home = tmp_path / "models--someone--present"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text("0" * 40)
    model = small()
    model.save_pretrained(home / "snapshots" / ("0" * 40))
    loaded = sightline.load_checkpoint("someone/present")
    images = torch.randn(1, 3, 16, 24)
    assert torch.equal(loaded(images), model(images))


@pytest.mark.parametrize("system", [VisionTransformer, DINOv2])
def test_own_folders_come_back_equal(tmp_path: Path, system: type[nn.Module]) -> None:
    model = system(image_size=(16, 24), patch=8, dim=16, depth=2, heads=2, classes=3, registers=2).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    model.save_pretrained(tmp_path)
    loaded = sightline.load_checkpoint(tmp_path)
    assert type(loaded) is system
    images = torch.randn(1, 3, 24, 16)
    assert torch.equal(loaded(images), model(images))
    loaded.save_pretrained(tmp_path / "again")
    assert torch.equal(sightline.load_checkpoint(tmp_path / "again", "sightline")(images), model(images))


def test_converted_weights_can_be_saved_and_loaded_again(tmp_path: Path) -> None:
    flat = small(image_size=16, classes=0).state_dict()
    layer = "layers.0.attention"
    state = {
        "cls_token": flat["class_token"],
        "pos_embed": flat["positions.table"],
        "patch_embed.proj.weight": flat["patches.project.weight"],
        "patch_embed.proj.bias": flat["patches.project.bias"],
        "norm.weight": flat["norm.weight"],
        "norm.bias": flat["norm.bias"],
    }
    for kind in ("weight", "bias"):
        state |= {
            f"blocks.0.norm1.{kind}": flat[f"layers.0.attention_norm.{kind}"],
            f"blocks.0.attn.qkv.{kind}": torch.cat(
                [flat[f"{layer}.{part}.{kind}"] for part in ("query", "key", "value")]
            ),
            f"blocks.0.attn.proj.{kind}": flat[f"{layer}.output.{kind}"],
            f"blocks.0.norm2.{kind}": flat[f"layers.0.feedforward_norm.{kind}"],
            f"blocks.0.mlp.fc1.{kind}": flat[f"layers.0.feedforward.expand.{kind}"],
            f"blocks.0.mlp.fc2.{kind}": flat[f"layers.0.feedforward.contract.{kind}"],
        }
    torch.save(state, tmp_path / "dino.pth")
    loaded = sightline.load_checkpoint(tmp_path / "dino.pth", heads=2)
    loaded.save_pretrained(tmp_path / "mine")
    again = sightline.load_checkpoint(tmp_path / "mine")
    assert again.positions.rule == "dino"
    images = torch.randn(1, 3, 24, 16)
    assert torch.equal(again(images), loaded(images))


def test_names_of_nobody_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "weights.safetensors", "safetensors")
    with pytest.raises(ValueError, match=r"names \(a\.weight, b\) belong to no known source.*timm-vit"):
        sightline.load_checkpoint(path)
    with pytest.raises(ValueError, match="no system"):
        sightline.load_checkpoint(path, "sightline")


def test_bundled_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules[bundled.__module__]
    monkeypatch.setattr(module, "_home", lambda: tmp_path / "weights")
    assert bundled_names() == []
    with pytest.raises(ValueError, match="'tiny'; there are: none"):
        bundled("tiny")
    model = small()
    folder = tmp_path / "weights" / "tiny"
    model.save_pretrained(folder)
    save_file({name: value.half() for name, value in model.state_dict().items()}, folder / "model.safetensors")
    (folder / "card.json").write_text(json.dumps({"top-1": 0.5}))
    assert bundled_names() == ["tiny"]
    assert bundled_card("tiny") == {"top-1": 0.5}
    loaded = bundled("tiny")
    assert {one.dtype for one in loaded.parameters()} == {torch.float32}
    assert not loaded.training
    torch.testing.assert_close(loaded.positions.table, model.positions.table, atol=1e-4, rtol=1e-3)
    with pytest.raises(ValueError, match="'huge'; there are: tiny"):
        bundled("huge")


def test_every_bundled_weight_loads_and_has_a_card() -> None:
    for name in bundled_names():
        assert isinstance(bundled(name), nn.Module)
        assert isinstance(bundled_card(name), dict)
