"""Published captioners: the PyTorch tutorial's pickled modules, the authors' `.npz`; EfficientNet-Lite's encoder."""

import json
import os
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from sightline.checkpoints import arctic_captions, efficientnet_lite, load_checkpoint, tutorial_captions
from sightline.checkpoints.pickled_modules import tensors_in
from sightline.systems.efficientnet_lite import EfficientNetLite, efficientnet_lite0, efficientnet_lite2
from sightline.systems.show_attend_tell import ShowAttendTell

Arrays = dict[str, np.ndarray]


def test_the_port_equals_the_golden_kit(shared: Path) -> None:
    kit = shared / "golden" / "show_attend_tell"
    weights, given, wanted = (load_file(kit / f"{name}.safetensors") for name in ("weights", "inputs", "outputs"))
    model = tutorial_captions.convert(weights, {}).build()
    features, tokens, order = given["features"].flatten(1, 2), given["captions"], wanted["sort_ind"]
    with torch.no_grad():
        told = model(features, tokens)
        parts = model.loss({"features": features, "tokens": tokens})
        memory = model.annotations(features)
        hidden, cell = model.begin(memory.mean(dim=1))
        context, alpha = model.attention(hidden[:, None], memory)
    assert told.weights is not None
    found = {
        "predictions": told.unpacked()[order],
        "alphas": told.weights[order],
        "h0": hidden,
        "c0": cell,
        "attention_context": context[:, 0],
        "attention_alpha": alpha[:, 0],
        "cross_entropy": parts["cross_entropy"],
        "doubly_stochastic": parts["balance"],
        "loss": parts["loss"],
    }
    allowed = json.loads((kit / "config.json").read_text())["outputs"]
    for name, value in found.items():
        assert (value - wanted[name]).abs().max() <= allowed[name]["atol"], name


# -- the tutorial's files ----------------------------------------------------------------------------------------------


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder_att, self.decoder_att, self.full_att = nn.Linear(6, 5), nn.Linear(8, 5), nn.Linear(5, 1)
        self.relu = nn.ReLU()


class DecoderWithAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.embedding, self.dropout = Attention(), nn.Embedding(11, 4), nn.Dropout(p=0.5)
        self.decode_step = nn.LSTMCell(4 + 6, 8, bias=True)
        self.init_h, self.init_c, self.f_beta, self.fc = (nn.Linear(*s) for s in ((6, 8), (6, 8), (8, 6), (8, 11)))


class Command:
    """Runs a shell command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_modules_are_read_and_nothing_of_them_runs(tmp_path: Path, zipped: bool) -> None:
    decoder = DecoderWithAttention()
    optimizer = torch.optim.Adam(decoder.parameters())
    decoder.fc(torch.ones(1, 8)).sum().backward()
    optimizer.step()
    contents = {"epoch": 3, "bleu-4": 0.24, "decoder": decoder, "encoder": nn.Sequential(nn.Conv2d(3, 4, 3))}
    contents |= {"decoder_optimizer": optimizer, "more": Command(tmp_path / "mark")}
    file = tmp_path / "BEST_checkpoint_coco.pth.tar"
    torch.save(contents, file, _use_new_zipfile_serialization=zipped)

    tensors = tensors_in(file)
    assert {name for name in tensors if name.startswith("encoder")} == {"encoder.0.weight", "encoder.0.bias"}
    for name, value in decoder.state_dict().items():
        assert torch.equal(tensors[f"decoder.{name}"], value)

    loaded = load_checkpoint(file)
    expected = tutorial_captions.convert(decoder.state_dict(), {}).build()
    assert isinstance(loaded, ShowAttendTell)
    assert loaded.form == "port"
    features, tokens = torch.rand(2, 9, 6), torch.tensor([[9, 3, 4, 10], [9, 5, 10, 0]])
    assert torch.equal(loaded(features, tokens).logits, expected(features, tokens).logits)
    assert not (tmp_path / "mark").exists()


def test_a_file_without_modules_is_refused_as_before(tmp_path: Path) -> None:
    torch.save({"model": Command(tmp_path / "mark"), "epoch": 1}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="never unpickled here"):
        load_checkpoint(tmp_path / "a.pth")
    with pytest.raises(ValueError, match="no dict of modules"):
        tensors_in(tmp_path / "a.pth")
    assert not (tmp_path / "mark").exists()


def test_a_broken_file_of_modules_is_refused(tmp_path: Path) -> None:
    torch.save({"decoder": DecoderWithAttention()}, tmp_path / "a.pth")
    whole = (tmp_path / "a.pth").read_bytes()
    (tmp_path / "b.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"b\.pth"):
        load_checkpoint(tmp_path / "b.pth")


# -- the authors' files ------------------------------------------------------------------------------------------------


def random_arrays(*, words: int, init_layers: int, attention_layers: int) -> Arrays:
    rng, (dim, embedding, context) = np.random.default_rng(0), (7, 5, 6)
    sizes = {
        "Wemb": (words, embedding),
        "decoder_W": (embedding, 4 * dim),
        "decoder_U": (dim, 4 * dim),
        "decoder_b": (4 * dim,),
        "decoder_Wc": (context, 4 * dim),
        "decoder_Wc_att": (context, context),
        "decoder_Wd_att": (dim, context),
        "decoder_b_att": (context,),
        "decoder_U_att": (context, 1),
        "decoder_c_tt": (1,),
        "decoder_W_sel": (dim, 1),
        "decoder_b_sel": (),
    }
    for name, shape in {
        "ff_state": (context, dim),
        "ff_memory": (context, dim),
        "ff_logit_lstm": (dim, embedding),
        "ff_logit_ctx": (context, embedding),
        "ff_logit": (embedding, words),
        **{f"ff_init_{n}": (context, context) for n in range(1, init_layers)},
    }.items():
        sizes |= {f"{name}_W": shape, f"{name}_b": shape[1:]}
    for n in range(1, attention_layers):
        sizes |= {f"decoder_W_att_{n}": (context, context), f"decoder_b_att_{n}": (context,)}
    return {name: rng.normal(size=shape).astype(np.float32) * 0.7 for name, shape in sizes.items()}


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def published(
    p: Arrays, features: np.ndarray, words: list[int], layers: tuple[int, int], kept: float
) -> tuple[np.ndarray, np.ndarray]:
    """The recurrences of the published code for one picture, restated; `kept` is what its dropout leaves in use."""

    def ff(x: np.ndarray, name: str) -> np.ndarray:
        return x @ p[f"{name}_W"] + p[f"{name}_b"]

    mean = features.mean(axis=0)
    for n in range(1, layers[0]):
        mean = np.maximum(ff(mean, f"ff_init_{n}"), 0) * kept
    h, c = np.tanh(ff(mean, "ff_state")), np.tanh(ff(mean, "ff_memory"))
    keys = features @ p["decoder_Wc_att"] + p["decoder_b_att"]
    for n in range(1, layers[1]):
        keys = np.tanh(keys @ p[f"decoder_W_att_{n}"] + p[f"decoder_b_att_{n}"])
    dim, before = len(h), np.zeros(p["Wemb"].shape[1])
    chances, alphas = [], []
    for word in words:
        alpha = softmax((np.tanh(keys + h @ p["decoder_Wd_att"]) @ p["decoder_U_att"])[:, 0] + p["decoder_c_tt"])
        context = sigmoid(h @ p["decoder_W_sel"] + p["decoder_b_sel"]) * (alpha @ features)
        gates = before @ p["decoder_W"] + p["decoder_b"] + h @ p["decoder_U"] + context @ p["decoder_Wc"]
        i, f, o, g = (gates[n * dim : (n + 1) * dim] for n in range(4))
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        deep = np.tanh(ff(h * kept, "ff_logit_lstm") + before + ff(context, "ff_logit_ctx")) * kept
        chances.append(softmax(ff(deep, "ff_logit")))
        alphas.append(alpha)
        before = p["Wemb"][word]
    return np.stack(chances), np.stack(alphas)


@pytest.mark.parametrize(("layers", "dropout"), [((1, 1), 0.5), ((3, 2), 0.5), ((2, 2), 0.0)])
def test_the_authors_weights_say_what_their_code_says(tmp_path: Path, layers: tuple[int, int], dropout: float) -> None:
    arrays = random_arrays(words=9, init_layers=layers[0], attention_layers=layers[1])
    # as their training leaves it: history beside the weights, and all of them again as a pickled object
    again = np.array(OrderedDict(arrays), dtype=object)
    np.savez(tmp_path / "coco.npz", zipped_params=again, history_errs=np.ones((3, 2)), train_err=0, **arrays)
    model = load_checkpoint(tmp_path / "coco.npz", dropout=dropout)
    assert isinstance(model, ShowAttendTell)
    features, words = np.random.default_rng(1).normal(size=(10, 6)), [4, 7, 1, 2, 0]
    wanted, alphas = published(arrays, features, words, layers, 0.5 if dropout else 1.0)
    tokens = torch.tensor([[model.start, *(word + 2 for word in words)]])
    with torch.no_grad():
        told = model(torch.from_numpy(features)[None].float(), tokens)
    chances = told.logits.softmax(dim=1)
    assert told.weights is not None
    assert np.abs(chances[:, 2:].numpy() - wanted).max() < 1e-5
    assert np.abs(told.weights[0].numpy() - alphas).max() < 1e-5
    assert chances[:, :2].max() == 0  # padding and start are never said
    assert load_checkpoint(tmp_path / "coco.npz", kind="hard").kind == "hard"


def test_what_has_no_place_is_named() -> None:
    arrays = {k: torch.as_tensor(v) for k, v in random_arrays(words=9, init_layers=1, attention_layers=1).items()}
    with pytest.raises(ValueError, match="decoder_W_sel"):
        arctic_captions.convert({k: v for k, v in arrays.items() if not k.endswith("_sel")}, {})
    with pytest.raises(ValueError, match="decoder_1_W"):
        arctic_captions.convert(arrays | {"decoder_1_W": torch.zeros(2, 2)}, {})
    decoder = DecoderWithAttention().state_dict()
    with pytest.raises(ValueError, match="extra"):
        tutorial_captions.convert(decoder | {"extra": torch.zeros(1)}, {})


# -- EfficientNet-Lite -------------------------------------------------------------------------------------------------


def published_names(model: EfficientNetLite) -> dict[str, torch.Tensor]:
    """A state dict in the names of the published files, written out the other way round than the converter does."""
    state: dict[str, torch.Tensor] = {}
    inner = {
        "widen": ("_expand_conv", "_bn0"),
        "filter": ("_depthwise_conv", "_bn1"),
        "narrow": ("_project_conv", "_bn2"),
    }
    for name, value in model.state_dict().items():
        top, *rest = name.split(".")
        if top == "blocks":
            state[f"_blocks.{rest[0]}.{inner[rest[1]][int(rest[2])]}.{rest[3]}"] = value
        elif top == "head":
            state[f"_fc.{rest[0]}"] = value
        else:
            state[
                f"{ {'stem': ('_conv_stem', '_bn0'), 'top': ('_conv_head', '_bn1')}[top][int(rest[0])] }.{rest[1]}"
            ] = value
    return state


@pytest.mark.parametrize("preset", [efficientnet_lite0, efficientnet_lite2])
def test_published_encoders_load(tmp_path: Path, preset: type[EfficientNetLite]) -> None:
    model = preset(classes=7).eval()
    torch.save(published_names(model), tmp_path / "lite.pth")
    loaded = load_checkpoint(tmp_path / "lite.pth")
    bare = load_checkpoint(tmp_path / "lite.pth", classes=0)
    images = torch.rand(1, 3, 65, 50)
    with torch.no_grad():
        assert torch.equal(loaded(images), model(images))
        assert torch.equal(loaded.head(bare(images)), model(images))
        assert bare.grid(images).shape == (1, 1280, 3, 2)


def test_another_depth_is_no_lite() -> None:
    state = published_names(efficientnet_lite0(classes=3))
    shorter = {name: value for name, value in state.items() if not name.startswith("_blocks.15.")}
    with pytest.raises(ValueError, match="15"):
        efficientnet_lite.convert(shorter, {})
