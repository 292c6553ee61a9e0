"""What a map needs before it is read: whole words, comparison with the average, and no sinks.

Rollout over layers is in `sightline.lens.rollout`, gradient relevance in `sightline.lens.gradients`.
"""

import re
import string
from collections.abc import Sequence
from functools import cache
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Style = Literal["wordpiece", "byte-bpe", "sentencepiece", "clip"]

_SPECIAL = re.compile(r"\[[A-Z]+\d*\]|<(?!0x)[^<>\s]+>|<\|[^|]*\|>")
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_ALONE = set(string.punctuation) - set("'-")


class Word(NamedTuple):
    """A word and the positions of its tokens."""

    text: str
    tokens: tuple[int, ...]


def word_groups(pieces: Sequence[str], *, style: Style | None = None) -> list[Word]:
    """Which tokens make up which word, from a tokenizer's pieces (`tokenizer.convert_ids_to_tokens(ids)`).

    style   how pieces mark words; found from the pieces where None:
            "sentencepiece" ▁ begins a word (Llama, T5, SigLIP) · "byte-bpe" Ġ or Ċ begins one (GPT-2, Qwen) ·
            "clip" </w> ends one · "wordpiece" ## continues one (BERT), also where no mark is seen.

    Every token is in exactly one word.  Special tokens (`[CLS]`, `</s>`, `<image>`, `<|im_end|>`) and
    punctuation are words of their own; apostrophes and hyphens stay inside theirs where the tokenizer lets
    them. Byte pieces (Ã©, `<0xE2>`) are decoded into the word's text.
    Trap: pieces of a single word without any mark look like WordPiece; give `style`.
    """
    style = style or _style(pieces)
    groups: list[list[int]] = []
    fresh = True  # the next piece begins a word
    for position, piece in enumerate(pieces):
        special = bool(_SPECIAL.fullmatch(piece))
        bare = _bare(piece, style)
        newline = style == "byte-bpe" and not bare and "Ċ" in piece
        alone = special or newline or (bare != "" and set(bare) <= _ALONE)
        begins = {
            "wordpiece": not piece.startswith("##"),
            "byte-bpe": piece[:1] in ("Ġ", "Ċ", "ĉ"),
            "sentencepiece": piece.startswith("▁"),
            "clip": False,
        }[style]
        empty_mark = bool(groups) and not fresh and _bare(pieces[groups[-1][-1]], style) == ""
        if fresh or alone or begins:
            if alone and not special and not begins and empty_mark:
                groups[-1].append(position)  # "▁" "," : the mark belongs to the piece after it
            else:
                groups.append([position])
        else:
            groups[-1].append(position)
        fresh = alone or (style == "clip" and piece.endswith("</w>"))
    return [Word(_text([pieces[i] for i in group], style), tuple(group)) for group in groups]


def word_groups_from_offsets(offsets: Sequence[tuple[int, int]], text: str) -> list[Word]:
    """Which tokens make up which word of `text`, from a fast tokenizer's `offset_mapping`.

    A word is a stretch of `text` without white space, cut before and after punctuation as in `word_groups`.
    Tokens of no characters (special tokens, offsets (0, 0)) are in no word.
    """
    alone = re.escape("".join(sorted(_ALONE)))
    words = [match.span() for match in re.finditer(rf"[{alone}]|[^\s{alone}]+", text)]
    found: dict[tuple[int, int], list[int]] = {}
    for position, (first, last) in enumerate(offsets):
        inside = [span for span in words if first < span[1] and last > span[0]]
        if inside:
            found.setdefault(inside[0], []).append(position)
    return [Word(text[first:last], tuple(found[first, last])) for first, last in words if (first, last) in found]


def merge_tokens(weights: Tensor, groups: Sequence[Word | Sequence[int]], dim: int = -1, how: str = "sum") -> Tensor:
    """Weights with the tokens of each group made one along `dim`: the size of `dim` becomes len(groups).

    how   "sum" for keys: a word receives all that its pieces receive, and rows still sum to 1 where the groups
          cover all tokens.  "mean" for queries: a word looks where its pieces look on average, and rows
          still sum to 1.  "max": the strongest piece.

    Tokens in no group are left out.  Raises IndexError for a position outside `dim`, ValueError for an empty
    group.
    """
    if how not in ("sum", "mean", "max"):
        raise ValueError(f'how={how!r} is not known: "sum" for keys, "mean" for queries, or "max".')
    size = weights.shape[dim]
    merged = []
    for group in groups:
        tokens = list(group.tokens if isinstance(group, Word) else group)
        if not tokens:
            raise ValueError("A group has no token: leave empty groups out.")
        if min(tokens) < 0 or max(tokens) >= size:
            raise IndexError(f"Group {tokens} names a position outside the {size} tokens of dimension {dim}.")
        part = weights.index_select(dim, torch.tensor(tokens, device=weights.device))
        merged.append(part.amax(dim) if how == "max" else getattr(part, how)(dim))
    if not merged:
        return weights.narrow(dim, 0, 0)
    return torch.stack(merged, dim=dim)


@torch.no_grad()
def mean_row(site: Any) -> Float[Tensor, "batch heads keys"]:
    """Mean over the kept rows of a site's attention: where it looks whatever the query.  Read by blocks."""
    total = None
    for _, block in site.blocks():
        part = block.sum(2)
        total = part if total is None else total + part
    if total is None:
        raise ValueError(f"{site.name} kept no row.")
    return total / site.rows


def relative(
    weights: Float[Tensor, "*batch rows keys"], reference: Tensor | None = None, *, floor: float = 1e-3
) -> Float[Tensor, "*batch rows keys"]:
    """Attention as a multiple of a reference: 1 where a row looks as much as the reference does.

    A_rel = A / max(reference, floor / keys).  With the model's attention under a general question as
    reference this is relative attention (Zhang et al. 2025, "MLLMs Know Where to Look"); with the mean row it
    takes away what every row looks at, sinks first.  The result is a ratio, not a distribution.

    reference   rows or one row, broadcast against `weights`: of another recording, or `mean_row(site)` with
                an axis of 1 for the rows.  None takes the mean over the rows given, two or more.
    floor       share of the uniform weight that the reference counts as at least, so that a key nobody looks
                at does not become infinite.
    Raises ValueError for a single row without a reference and for another number of keys.
    """
    if reference is None:
        if weights.shape[-2] < 2:
            raise ValueError(
                f"weights {tuple(weights.shape)} hold one row, which is its own mean: give reference=, from "
                f"mean_row(site) of a recording with more rows or from a recording under another prompt."
            )
        reference = weights.mean(-2, keepdim=True)
    if reference.shape[-1] != weights.shape[-1]:
        raise ValueError(
            f"reference has {reference.shape[-1]} keys, weights {weights.shape[-1]}: compare maps over the "
            f"same keys (for a prompt of another length, cut both to the image tokens first)."
        )
    return weights / reference.clamp(min=floor / weights.shape[-1])


@torch.no_grad()
def sink_keys(site: Any, factor: float = 10.0) -> Bool[Tensor, "batch keys"]:
    """Keys that draw more than `factor` times what even rows would give them, over all rows and heads.

    Even means 1/n over the n keys that a row can see (weight above 0), so causal and padded rows are judged
    by what is open to them.  Such sinks are class and begin-of-sequence tokens and the high-norm background
    patches that registers remove (Xiao et al. 2023; Darcet et al. 2023): large, but not about what was seen.
    Raises ValueError for a site that kept one row: many rows must agree before a key is a sink.
    """
    if site.rows < 2:
        raise ValueError(f"{site.name} kept {site.rows} row; sinks show over many rows: record with queries=None.")
    drawn, even = 0.0, 0.0
    for _, block in site.blocks():
        open_keys = (block > 0).to(block.dtype)
        drawn = drawn + block.sum((1, 2))
        even = even + (open_keys / open_keys.sum(-1, keepdim=True).clamp(min=1)).sum((1, 2))
    return torch.as_tensor(drawn > factor * even)


def without_sinks(
    weights: Float[Tensor, "*batch keys"], prefix: int = 0, sinks: Tensor | Sequence[int] | None = None
) -> Float[Tensor, "*batch keys"]:
    """Rows without their first `prefix` keys and the `sinks`, divided by their new sum.

    The keys become 0 and keep their place, so token geometry still fits.  A row with nothing left stays 0.

    prefix   number of leading keys: class, distillation and register tokens (`layout.prefix`).
    sinks    key positions, or a mask such as `sink_keys` gives: (batch, keys) is matched to the first
             dimension of `weights`, (keys,) is used for all.
    """
    keys = weights.shape[-1]
    if not 0 <= prefix <= keys:
        raise ValueError(f"prefix={prefix} must lie from 0 to the {keys} keys of a row.")
    dropped = torch.zeros(keys, dtype=torch.bool, device=weights.device)
    dropped[:prefix] = True
    if sinks is not None:
        given = torch.as_tensor(sinks, device=weights.device)
        if given.dtype != torch.bool:
            given = torch.zeros_like(dropped).index_fill(0, given.long().reshape(-1) % keys, True)
        if given.shape[-1] != keys or given.ndim > weights.ndim:
            raise ValueError(f"sinks {tuple(given.shape)} does not fit weights {tuple(weights.shape)}.")
        while 1 < given.ndim < weights.ndim:
            given = given.unsqueeze(1)
        dropped = dropped | given
    left = weights.masked_fill(dropped, 0.0)
    total = left.sum(-1, keepdim=True)
    return left / total.where(total > 0, 1.0)


def _style(pieces: Sequence[str]) -> Style:
    if any("▁" in piece for piece in pieces):
        return "sentencepiece"
    if any(piece[:1] in ("Ġ", "Ċ") for piece in pieces):
        return "byte-bpe"
    if any(piece.endswith("</w>") for piece in pieces):
        return "clip"
    return "wordpiece"


def _bare(piece: str, style: Style) -> str:
    """The piece without its mark."""
    if style == "wordpiece":
        return piece.removeprefix("##")
    if style == "clip":
        return piece.removesuffix("</w>")
    return piece.lstrip("▁" if style == "sentencepiece" else "ĠĊĉ")


def _text(pieces: Sequence[str], style: Style) -> str:
    if len(pieces) == 1 and _SPECIAL.fullmatch(pieces[0]):
        return pieces[0]
    bare = [_bare(piece, style) for piece in pieces]
    table = _bytes_of_letters()
    joined = "".join(bare)
    if style in ("byte-bpe", "clip") and all(letter in table for letter in joined):
        return bytes(table[letter] for letter in joined).decode("utf-8", errors="replace").strip()
    raw = b"".join(bytes([int(m[1], 16)]) if (m := _BYTE.fullmatch(part)) else part.encode() for part in bare)
    return raw.decode("utf-8", errors="replace")


@cache
def _bytes_of_letters() -> dict[str, int]:
    """Byte of each letter in byte-level BPE: printable Latin-1 stands for itself, the rest for 256, 257 …"""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    shifted = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(shifted)}
