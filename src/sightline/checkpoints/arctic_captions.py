"""The authors' own weights of Show, Attend and Tell: `.npz` files of arctic-captions (Theano).

Matrices are stored (inputs, outputs), LSTM gates in the order input, forget, output, content, the context's part of the
gates apart (`decoder_Wc`).  Word 0 is `<eos>`, word 1 UNK; there is no start token: the first input is a zero vector.
"""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from sightline.checkpoints.convert import Converted, count_layers, rename, require, settle
from sightline.systems.show_attend_tell import ShowAttendTell

# what the authors' training adds to the weights: its history
_HISTORY = ("history_errs", "train_err", "valid_err", "test_err")
_NEVER = -1e4  # a logit whose probability is exactly 0 in float32


def matches(keys: Collection[str], config: Mapping[str, Any]) -> bool:
    """Recognises the authors' names."""
    return {"Wemb", "decoder_Wc_att", "ff_logit_lstm_W"} <= set(keys)


def convert(state: Mapping[str, Tensor], config: Mapping[str, Any], **overrides: Any) -> Converted:
    """Converts to `ShowAttendTell` in its "paper" form.

    The vocabulary gets Sightline's four special words in front: padding and start (never said; start is the zero
    vector), end (their word 0), unknown (their word 1); their word n is n + 2.  `dropout` (0.5, as all their published
    settings have it) tells whether it was trained with dropout: theirs multiplies by 0.5 in use, which is folded into
    the matrices behind; give dropout=0 for weights trained without.  `kind="hard"` for stochastic attention.  The
    context and the word before must have been read by the output (ctx2out, prev2out), as in equation 7.  Raises
    ValueError for what has no place here, by name: several LSTM layers, an LSTM over the cells, no selector.
    """
    state = {name: value for name, value in state.items() if name not in _HISTORY}
    words, query = require(state, "Wemb", 2), require(state, "decoder_Wd_att", 2)
    extra = {"attention": count_layers(state, "decoder_W_att_"), "init": _layers(state, "ff_init_")}
    shown: dict[str, Any] = {
        "vocab": len(words) + 2,
        "width": query.shape[1],
        "embedding": words.shape[1],
        "hidden": len(query),
        "attention": query.shape[1],
        "form": "paper",
        "kind": None,
        "init_layers": extra["init"] + 1,
        "attention_layers": extra["attention"] + 1,
        "dropout": None,
    }
    arguments = settle(ShowAttendTell, shown, {"dropout": 0.5, "kind": "soft"} | overrides)
    renamed = rename(state, _names(extra["init"], extra["attention"]))
    return Converted(ShowAttendTell, arguments, _converted(renamed, 0.5 if arguments["dropout"] else 1.0))


def _layers(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({name.removeprefix(prefix).split("_")[0] for name in state if name.startswith(prefix)})


def _names(init_layers: int, attention_layers: int) -> dict[str, str | tuple[str, ...]]:
    linear = {"ff_state": "begin.hidden", "ff_memory": "begin.memory", "ff_logit_lstm": "output.hidden"}
    linear |= {"ff_logit_ctx": "output.context", "ff_logit": "head"}
    linear |= {f"ff_init_{n + 1}": f"begin.before.{n}" for n in range(init_layers)}
    names: dict[str, str | tuple[str, ...]] = {"Wemb": "embedding.weight"}
    for theirs, ours in linear.items():
        names |= {f"{theirs}_W": f"{ours}.weight", f"{theirs}_b": f"{ours}.bias"}
    for n in range(attention_layers):
        names |= {f"decoder_W_att_{n + 1}": f"deeper.{n}.weight", f"decoder_b_att_{n + 1}": f"deeper.{n}.bias"}
    return names | {
        "decoder_Wc_att": "attention.key.weight",
        "decoder_b_att": "attention.key.bias",
        "decoder_Wd_att": "attention.query.weight",
        "decoder_U_att": "attention.score.weight",
        "decoder_c_tt": "unused",
        "decoder_W_sel": "gate.linear.weight",
        "decoder_b_sel": "gate.linear.bias",
        "decoder_W": "read.weight",
        "decoder_Wc": "let_in.weight",
        "decoder_U": "recall.weight",
        "decoder_b": "read.bias",
    }


def _converted(state: dict[str, Tensor], kept: float) -> dict[str, Tensor]:
    del state["unused"]  # a bias under the softmax
    for name, value in state.items():
        if name.endswith("weight") and name != "embedding.weight":
            state[name] = value.T.contiguous()
    for name in ("read.weight", "let_in.weight", "recall.weight", "read.bias"):
        entry, forget, exit_, content = state[name].chunk(4)
        state[name] = torch.cat([entry, forget, content, exit_])
    state["gate.linear.bias"] = state["gate.linear.bias"].reshape(1)
    # each dropout is followed by a matrix: W (x / 2) = (W / 2) x
    behind = ["output.hidden.weight", "head.weight"]
    before = sorted(name for name in state if name.startswith("begin.before") and name.endswith("weight"))
    if before:
        behind += [*before[1:], "begin.hidden.weight", "begin.memory.weight"]
    for name in behind:
        state[name] = state[name] * kept
    two = state["embedding.weight"].new_zeros(2, state["embedding.weight"].shape[1])
    state["embedding.weight"] = torch.cat([two, state["embedding.weight"]])
    state["head.weight"] = torch.cat([two, state["head.weight"]])
    state["head.bias"] = torch.cat([state["head.bias"].new_full((2,), _NEVER), state["head.bias"]])
    state["baseline"] = torch.zeros(())
    return state
