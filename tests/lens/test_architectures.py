"""Recorded weights equal the eager weights of `transformers`, architecture by architecture.

Each row of `TABLE` is a tiny random model.  It runs as it comes (nearly always on the fused kernel) under
`sightline.record`, and once more with `attn_implementation="eager"` and `output_attentions=True`, the reference.
Where a model does not return some of its attention, the reference is what its eager modules hand back internally,
or a few lines written here.

Rows that may attend nowhere (padding on the left of a causal model) are zero in the fused kernel and uniform in
the eager code: recorded is what ran, zero, and the comparison leaves these rows out.

`python tests/lens/test_architectures.py` measures again and rewrites the table in docs/architectures.md.
"""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch
from eager_reference import (
    call,
    dropout_inputs,
    eager,
    leaves,
    qwen_windows,
    sam_in_place,
    siglip_head,
    swin_in_place,
    visible,
)
from torch import Tensor, nn

import sightline

DOCS = Path(__file__).resolve().parents[2] / "docs" / "architectures.md"
TOLERANCE = 1e-5

# weights of one site that the eager run gave, or that a few lines computed: (model, inputs) -> {site name: weights}
ByHand = Callable[[nn.Module, dict[str, Any]], dict[str, Tensor]]


@dataclass
class Row:
    """One architecture.  `fields`: glob on site paths -> field of the eager output with their weights, in order."""

    name: str
    build: Callable[[], tiny.Built]
    sites: int
    fields: dict[str, str] = field(default_factory=lambda: {"*": "attentions"})
    by_hand: ByHand | None = None
    cross: str = ""  # glob on the paths of cross attention; everything else is self attention
    heads: dict[str, int] = field(default_factory=lambda: {"*": 4})
    note: str = ""


# -- the table -----------------------------------------------------------------------------------------------

TOWERS = {"vision_model.*layers*": "vision_model_output.attentions", "text_model*": "text_model_output.attentions"}
SEQ2SEQ = {
    "*encoder.layers.*.self_attn": "encoder_attentions",
    "*decoder.layers.*.self_attn": "decoder_attentions",
    "*encoder_attn": "cross_attentions",
}
TWO = {"*encoder.layers*": 4, "*decoder.layers*": 2}
INTERNAL: dict[str, str] = {}  # every site from what the eager modules return internally

TABLE = [
    Row("ViT", tiny.vit, 2),
    Row("DeiT", tiny.deit, 2),
    Row("DINOv2", tiny.dinov2, 2),
    Row("DINOv2 with registers", tiny.dinov2_registers, 2),
    Row("DINOv3", tiny.dinov3, 2),
    Row("I-JEPA", tiny.ijepa, 2),
    Row("YOLOS", tiny.yolos, 2),
    Row("BEiT (relative bias)", tiny.beit, 2),
    Row("Data2Vec vision", tiny.data2vec, 2),
    Row("ViT-MAE", tiny.mae, 4, {"vit*": "attentions"}, heads={"vit*": 4, "decoder*": 2}),
    Row("Swin", tiny.swin, 4, INTERNAL, partial(swin_in_place, "attention"), heads={"*s.0.b*": 2, "*s.1.b*": 4},
        note="windows put back in place"),
    Row("Swin v2", tiny.swinv2, 4, INTERNAL, partial(swin_in_place, "attention.self"),
        heads={"*s.0.b*": 2, "*s.1.b*": 4}, note="windows put back in place"),
    Row("SAM image encoder", tiny.sam_vision, 2, INTERNAL, sam_in_place, note="windows put back in place"),
    Row("OWL-ViT image tower", tiny.owlvit, 2),
    Row("SegFormer", tiny.segformer, 3, heads={"*s.0.b*": 1, "*s.1.b*": 2}, note="keys reduced in stage 1"),
    Row("PVT v2", tiny.pvt, 2, INTERNAL, heads={"*s.0.b*": 1, "*s.1.b*": 2}, note="keys reduced in stage 1"),
    Row("DETR", tiny.detr, 6, SEQ2SEQ, cross="*encoder_attn", heads=TWO, note="padded image in the batch"),
    Row("VideoMAE", tiny.videomae, 2),
    Row("ViViT", tiny.vivit, 2),
    Row("TimeSformer", tiny.timesformer, 4, {"*.attention.attention": "attentions"},
        partial(dropout_inputs, "temporal_attention.attention.attn_drop"), note="time and space apart"),
    Row("CLIP, both towers", tiny.clip, 4, TOWERS),
    Row("SigLIP, both towers and pooling head", tiny.siglip, 5, TOWERS, siglip_head, "*head.attention"),
    Row("BERT", tiny.bert, 2, note="padded"),
    Row("RoBERTa", tiny.roberta, 2, note="padded"),
    Row("DistilBERT", tiny.distilbert, 2, note="padded"),
    Row("ALBERT", tiny.albert, 2, note="padded; one module, run twice"),
    Row("DeBERTa v2", tiny.deberta, 2, note="padded; disentangled positions"),
    Row("XLNet", tiny.xlnet, 2, INTERNAL, partial(dropout_inputs, "rel_attn.dropout")),
    Row("GPT-2", tiny.gpt2, 2),
    Row("GPT-Neo (local attention)", tiny.gpt_neo, 2),
    Row("GPT-J", tiny.gptj, 2),
    Row("GPT-2, padded left", partial(tiny.gpt2, 3), 2),
    Row("Llama", tiny.llama, 2, note="grouped heads"),
    Row("Llama, padded left", tiny.llama_padded, 2, note="grouped heads"),
    Row("Mistral (sliding window)", tiny.mistral, 2, note="grouped heads"),
    Row("Mixtral", tiny.mixtral, 2, note="grouped heads"),
    Row("Qwen2 (sliding window), padded left", tiny.qwen2, 2, note="grouped heads"),
    Row("Qwen3, padded left", tiny.qwen3, 2, note="grouped heads"),
    Row("Phi", tiny.phi, 2),
    Row("Phi-3", tiny.phi3, 2, note="grouped heads"),
    Row("Gemma", tiny.gemma, 2, note="grouped heads"),
    Row("Gemma 2 (soft cap), padded left", tiny.gemma2, 2, note="grouped heads"),
    Row("Gemma 3 (sliding window)", tiny.gemma3, 2, note="grouped heads"),
    Row("OPT, padded left", tiny.opt, 2),
    Row("GPT-NeoX", tiny.gpt_neox, 2),
    Row("BLOOM (ALiBi), padded left", tiny.bloom, 2),
    Row("Falcon", tiny.falcon, 2),
    Row("T5", tiny.t5, 6, {
        "encoder*SelfAttention": "encoder_attentions", "decoder*SelfAttention": "decoder_attentions",
        "*EncDecAttention": "cross_attentions",
    }, cross="*EncDecAttention", note="relative bias; padded"),
    Row("BART", tiny.bart, 6, SEQ2SEQ, cross="*encoder_attn", heads=TWO, note="padded"),
    Row("Marian", tiny.marian, 6, SEQ2SEQ, cross="*encoder_attn", heads=TWO, note="padded"),
    Row("Pegasus", tiny.pegasus, 6, SEQ2SEQ, cross="*encoder_attn", heads=TWO, note="padded"),
    Row("Wav2Vec 2", tiny.wav2vec2, 2),
    Row("Whisper", tiny.whisper, 6, SEQ2SEQ, cross="*encoder_attn", heads=TWO),
    Row("ViLT", tiny.vilt, 2, note="padded"),
    Row("LXMERT", tiny.lxmert, 6, INTERNAL, partial(dropout_inputs, "dropout"), "*visual_attention*",
        note="one module, two cross attentions"),
    Row("Perceiver", tiny.perceiver, 3, {"*cross_attention*": "cross_attentions", "*self_attends*": "attentions"},
        cross="*cross_attention*", heads={"*": 2}),
    Row("BLIP captioning", tiny.blip, 6, INTERNAL, cross="*crossattention*"),
    Row("BLIP-2 (Q-Former)", tiny.blip2, 8, INTERNAL, cross="*crossattention*"),
    Row("TrOCR", tiny.trocr, 6, {
        "encoder*": "encoder_attentions", "decoder*self_attn": "decoder_attentions",
        "*encoder_attn": "cross_attentions",
    }, cross="*encoder_attn"),
    Row("LLaVA", tiny.llava, 5, {"*language_model*": "attentions"}),
    Row("LLaVA, padded left", partial(tiny.llava, 2), 5, {"*language_model*": "attentions"}),
    Row("PaliGemma", tiny.paligemma, 4, {"*language_model*": "attentions"}, note="the whole prompt sees itself"),
    Row("Idefics 3 / SmolVLM", tiny.idefics3, 4, {"*text_model*": "attentions"}),
    Row("Qwen2.5-VL", tiny.qwen2_5_vl, 5, {"*language_model*": "attentions"}, qwen_windows,
        note="a call per window, joined; in the tower's own patch order"),
]  # fmt: skip


# -- checks --------------------------------------------------------------------------------------------------


def references(row: Row, model: nn.Module, inputs: dict[str, Any], seen: Any) -> dict[str, Tensor]:
    """The eager weights of every site, by site name."""
    found = row.by_hand(model, inputs) if row.by_hand else {}
    output, returned = eager(model, inputs)
    found = {**returned, **found}
    for pattern, dotted in row.fields.items():
        value: Any = output
        for part in dotted.split("."):
            value = getattr(value, part)
        sites = [site for site in seen if fnmatchcase(site.path, pattern)]
        assert len(sites) == len(value), f"{row.name}: {len(sites)} sites, {len(value)} in {dotted}"
        found.update({site.name: weights for site, weights in zip(sites, value, strict=True)})
    return found


def run(row: Row) -> tuple[nn.Module, dict[str, Any], Any]:
    """Records all rows, having checked that the model's own output stayed as it is."""
    model, inputs = row.build()
    before = list(leaves(call(model, inputs)))
    with sightline.record(model) as seen:
        after = list(leaves(call(model, inputs)))
    assert len(before) == len(after) > 0
    for plain, watched in zip(before, after, strict=True):
        torch.testing.assert_close(watched, plain, atol=1e-6, rtol=1e-6)
    return model, inputs, seen


def largest_error(row: Row, model: nn.Module, inputs: dict[str, Any], seen: Any) -> float:
    """Largest difference from the reference over all sites, at rows that may attend somewhere."""
    worst = 0.0
    for site_name, weights in compared(row, model, inputs, seen):
        worst = max(worst, weights[0].sub(weights[1]).abs().max().item())
        assert weights[1].amax(-1).mean() > 1.2 / weights[1].shape[-1], (
            f"{site_name}: a uniform reference proves nothing"
        )
    return worst


def compared(
    row: Row, model: nn.Module, inputs: dict[str, Any], seen: Any
) -> Iterator[tuple[str, tuple[Tensor, Tensor]]]:
    """(site name, (recorded, reference)), each (visible rows, heads, keys)."""
    expected = references(row, model, inputs, seen)
    for site in seen:
        assert site.name in expected, f"{row.name}: no reference for {site.name}"
        assert site.weights.shape == expected[site.name].shape, site.name
        rows = visible(inputs, site)
        yield site.name, tuple(w.transpose(1, 2)[rows] for w in (site.weights, expected[site.name]))  # type: ignore[misc]


@pytest.mark.filterwarnings("error:not recorded")  # where nothing is missing, nothing is said to be
@pytest.mark.parametrize("row", TABLE, ids=lambda row: re.sub(r"\W+", "-", row.name))
def test_recorded_weights_equal_the_eager_weights(row: Row) -> None:
    model, inputs, seen = run(row)
    assert len(seen) == row.sites, seen
    for site in seen:
        cross = bool(row.cross) and fnmatchcase(site.path, row.cross)
        assert site.kind == ("cross" if cross else "self"), f"{site.name} is {site.kind}"
        heads = next(count for pattern, count in row.heads.items() if fnmatchcase(site.path, pattern))
        assert site.heads == heads, site.name
        rows = visible(inputs, site)
        total = site.weights.sum(-1).transpose(1, 2)
        if "SAM" not in row.name:  # padding of its windows takes part of the mass: the rest is on the grid
            torch.testing.assert_close(total[rows], torch.ones_like(total[rows]), atol=1e-5, rtol=0)
        assert total[~rows].abs().sum() == 0 or site.source == "softmax", f"{site.name}: hidden rows are zero"

    _few_rows_equal_the_full_matrix(model, inputs, seen)
    assert largest_error(row, model, inputs, seen) < TOLERANCE


def _few_rows_equal_the_full_matrix(model: nn.Module, inputs: dict[str, Any], seen: Any) -> None:
    at_one = [site.name for site in seen if site.queries > 1]
    with sightline.record(model, queries=sightline.CLS) as first:
        call(model, inputs)
    with sightline.record(model, queries=lambda site: [1] if site.queries > 1 else [0], heads=[-1]) as second:
        call(model, inputs)
    assert [s.name for s in first] == [s.name for s in second] == [s.name for s in seen]
    for full, cls, one in zip(seen, first, second, strict=True):
        torch.testing.assert_close(cls.weights, full.weights[:, :, :1], atol=1e-6, rtol=0)
        number = 1 if full.name in at_one else 0
        assert one.query_index.tolist() == [number]
        torch.testing.assert_close(one.weights, full.weights[:, -1:, number : number + 1], atol=1e-6, rtol=0)


def test_attention_that_cannot_be_followed_is_named() -> None:
    """LED's encoder multiplies pieces of a band matrix: its decoder is recorded, and a warning says what is not."""
    model, inputs = tiny.led()
    with (
        pytest.warns(UserWarning, match=r"not recorded.*encoder\.layers\.0\.self_attn"),
        sightline.record(model) as seen,
    ):
        call(model, inputs)
    assert {site.path.split(".")[0] for site in seen} == {"decoder"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ViT", "Llama"])
def test_the_same_inside_torch_compile(name: str) -> None:
    row = next(row for row in TABLE if row.name == name)
    model, inputs, _ = run(row)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True)
    before = list(leaves(call(compiled, inputs)))
    with sightline.record(compiled) as seen:
        after = list(leaves(call(compiled, inputs)))
    for plain, watched in zip(before, after, strict=True):
        torch.testing.assert_close(watched, plain, atol=1e-5, rtol=1e-5)
    assert len(seen) == row.sites
    assert largest_error(row, model, inputs, seen) < TOLERANCE


# -- the page in docs ----------------------------------------------------------------------------------------

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def measured() -> str:
    """The table of docs/architectures.md, measured now."""
    lines = ["| architecture | sites | self / cross | source | largest error | remarks |", "|---|---|---|---|---|---|"]
    for row in TABLE:
        model, inputs, seen = run(row)
        cross = sum(site.kind == "cross" for site in seen)
        sources = ", ".join(sorted({site.source for site in seen}))
        error = largest_error(row, model, inputs, seen)
        lines.append(
            f"| {row.name} | {len(seen)} | {len(seen) - cross} / {cross} | {sources} | {error:.1e} | {row.note} |"
        )
    return "\n".join(lines)


def test_every_architecture_of_the_table_is_in_the_docs() -> None:
    page = DOCS.read_text()
    missing = [row.name for row in TABLE if f"| {row.name} | {row.sites} |" not in page]
    assert not missing, f"run `python tests/lens/test_architectures.py`: docs/architectures.md lacks {missing}"


def main() -> None:
    page = DOCS.read_text()
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    DOCS.write_text(f"{head}{BEGIN}\n{measured()}\n{END}{tail}")


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    print(f"{DOCS.name}: {len(TABLE)} architectures in {time.perf_counter() - started:.0f} s")  # noqa: T201
