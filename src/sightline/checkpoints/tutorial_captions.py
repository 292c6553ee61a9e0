"""Decoders of the widely used PyTorch captioning tutorial (sgrvinod/a-PyTorch-Tutorial-to-Image-Captioning).

Its `BEST_checkpoint_*.pth.tar` holds pickled modules; `checkpoints.read` takes the tensors out of them and runs nothing
(`pickled_modules`), which gives the names below with "decoder." before them and the encoder's under "encoder.".
"""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from sightline.checkpoints.convert import Converted, rename, require, settle
from sightline.systems.show_attend_tell import ShowAttendTell

_LSTM_BIASES = ("decode_step.bias_ih", "decode_step.bias_hh")
_NAMES: dict[str, str | tuple[str, ...]] = {
    "embedding.weight": "embedding.weight",
    "attention.encoder_att.weight": "attention.key.weight",
    "attention.encoder_att.bias": "attention.key.bias",
    "attention.decoder_att.weight": "attention.query.weight",
    "attention.full_att.weight": "attention.score.weight",
    "words": "read.weight",
    "context": "let_in.weight",
    "decode_step.weight_hh": "recall.weight",
    "decode_step.bias_ih": "read.bias",
    "init_h.weight": "begin.hidden.weight",
    "init_h.bias": "begin.hidden.bias",
    "init_c.weight": "begin.memory.weight",
    "init_c.bias": "begin.memory.bias",
    "f_beta.weight": "gate.linear.weight",
    "f_beta.bias": "gate.linear.bias",
    "fc.weight": "head.weight",
    "fc.bias": "head.bias",
    "baseline": "baseline",
}


def matches(keys: Collection[str], config: Mapping[str, Any]) -> bool:
    """Recognises the decoder's names, bare or after "decoder."."""
    return any(
        {f"{before}attention.full_att.weight", f"{before}f_beta.weight"} <= set(keys) for before in ("", "decoder.")
    )


def convert(state: Mapping[str, Tensor], config: Mapping[str, Any], **overrides: Any) -> Converted:
    """Converts the decoder to `ShowAttendTell` in its "port" form; the encoder (a ResNet-101) is left out.

    Words keep the tutorial's numbers (its WORDMAP file): 0 is padding, `<start>` and `<end>` are the last but one and
    the last.  Biases that only ever meet in a sum are added up; a bias behind the softmax's scores is dropped, as
    it changes nothing.  Raises ValueError for names that are missing or left over.
    """
    if any(name.startswith("decoder.") for name in state):
        state = {name.removeprefix("decoder."): value for name, value in state.items() if name.startswith("decoder.")}
    state = dict(state)
    embedding, cell = require(state, "embedding.weight", 2), require(state, "decode_step.weight_hh", 2)
    keys = require(state, "attention.encoder_att.weight", 2)
    for kept, added in (("attention.encoder_att.bias", "attention.decoder_att.bias"), _LSTM_BIASES):
        state[kept] = require(state, kept, 1) + require(state, added, 1)
        del state[added]
    state.pop("attention.full_att.bias", None)
    inputs = require(state, "decode_step.weight_ih", 2)
    state["words"] = inputs[:, : embedding.shape[1]].clone()
    state["context"] = inputs[:, embedding.shape[1] :].clone()
    del state["decode_step.weight_ih"]
    state["baseline"] = embedding.new_zeros(())
    shown = {
        "vocab": len(embedding),
        "width": keys.shape[1],
        "embedding": embedding.shape[1],
        "hidden": cell.shape[1],
        "attention": len(keys),
        "form": "port",
    }
    return Converted(ShowAttendTell, settle(ShowAttendTell, shown, overrides), rename(state, _NAMES))
