"""One recording over all steps of `model.generate`: each token has its row of one eager pass over the whole text."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import tiny_models as tiny
import torch
from eager_reference import call, eager, qwen_windows, visible
from torch import Tensor, nn

import sightline

NEW = 5

CASES: dict[str, Callable[[], tiny.Built]] = {
    "gpt2": tiny.gpt2,
    "gpt2-padded": partial(tiny.gpt2, 3),
    "llama": tiny.llama,
    "llama-padded": tiny.llama_padded,
    "mistral-sliding-cache": tiny.mistral,
    "qwen3-padded": tiny.qwen3,
    "gemma2-sliding-cache": tiny.gemma2,
    "bart": tiny.bart,
    "t5": tiny.t5,
    "marian": tiny.marian,
    "trocr": tiny.trocr,
    "blip": tiny.blip,
    "llava": tiny.llava,
    "llava-padded": partial(tiny.llava, 2),
    "qwen2.5-vl": tiny.qwen2_5_vl,
}
ENCODER_DECODER = {"bart", "t5", "marian", "trocr"}


def generate(model: nn.Module, inputs: dict[str, Any], **more: Any) -> Tensor:
    given = {name: value for name, value in inputs.items() if name != "decoder_input_ids"}
    more = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False, **more}
    return model.generate(**given, **more)


def teacher_inputs(name: str, inputs: dict[str, Any], sequences: Tensor) -> dict[str, Any]:
    """Inputs of one pass over all tokens that were fed: all but the last one."""
    fed = sequences[:, :-1]
    if name in ENCODER_DECODER:
        return {**inputs, "decoder_input_ids": fed}
    whole = {**inputs, "input_ids": fed}
    extra = fed.shape[1] - inputs["input_ids"].shape[1]
    if "mm_token_type_ids" in inputs:
        whole["mm_token_type_ids"] = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, extra))
    if name == "blip":  # its own generate drops the last token of the prompt
        whole["attention_mask"] = torch.ones_like(fed)
    elif "attention_mask" in inputs:
        mask = torch.nn.functional.pad(inputs["attention_mask"], (0, extra), value=1)
        whole["attention_mask"] = mask
        whole["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)  # as generate counts them
    return whole


def assert_equals_one_pass(name: str, model: nn.Module, inputs: dict[str, Any], sites: Any, sequences: Tensor) -> None:
    whole = teacher_inputs(name, inputs, sequences)
    expected = eager(model, whole)[1]
    if name == "qwen2.5-vl":
        expected |= qwen_windows(model, whole)
    for site in sites:
        reference = expected[site.path]
        assert site.query_index.tolist() == list(range(reference.shape[2])), site
        assert site.weights.shape == reference.shape, site
        rows = visible(whole, site)
        torch.testing.assert_close(
            site.weights.transpose(1, 2)[rows], reference.transpose(1, 2)[rows], atol=1e-5, rtol=0, msg=site.name
        )


@pytest.mark.parametrize("name", CASES)
def test_each_generated_token_has_the_row_of_one_eager_pass(name: str) -> None:
    model, inputs = CASES[name]()
    plain = generate(model, inputs)
    with sightline.record(model) as seen:
        sequences = generate(model, inputs)
    assert torch.equal(sequences, plain)
    assert len(seen.passes) == 1
    assert len({site.path for site in seen}) == len(seen), "one site a place, not one a step"
    stepped = [site for site in seen if site.stepped]
    assert stepped
    for site in stepped:
        assert len(site.steps) == NEW
        assert site.steps[1:] == (1,) * (NEW - 1)
    assert_equals_one_pass(name, model, inputs, seen, sequences)


@pytest.mark.parametrize("name", ["gpt2", "gpt2-padded", "llama", "llama-padded"])
def test_a_cache_of_fixed_size(name: str) -> None:
    model, inputs = CASES[name]()
    with sightline.record(model) as seen:
        sequences = generate(model, inputs, cache_implementation="static")
    assert_equals_one_pass(name, model, inputs, seen, sequences)


def test_without_a_cache_every_step_is_a_pass_of_its_own() -> None:
    model, inputs = tiny.gpt2()
    with sightline.record(model) as seen:
        sequences = generate(model, inputs, use_cache=False)
    assert len(seen.passes) == NEW
    assert [sites[0].queries for sites in seen.passes] == [7, 8, 9, 10, 11]
    assert_equals_one_pass("gpt2", model, inputs, seen.passes[-1], sequences)


@pytest.mark.parametrize("name", ["llama-padded", "bart", "llava", "mistral-sliding-cache", "qwen2.5-vl"])
def test_only_the_last_row_of_each_step(name: str) -> None:
    model, inputs = CASES[name]()
    with sightline.record(model) as full:
        generate(model, inputs)
    with sightline.record(model, queries=sightline.LAST, heads=[1]) as seen:
        generate(model, inputs)
    assert [site.name for site in seen] == [site.name for site in full]
    for few, every in zip(seen, full, strict=True):
        kept = few.query_index
        if few.stepped:
            assert kept.tolist() == list(range(every.queries - NEW, every.queries))
        else:
            assert kept.tolist() == [every.queries - 1]
        torch.testing.assert_close(few.weights, every.weights[:, 1:2, kept], atol=1e-6, rtol=0)
        torch.testing.assert_close(few.row(-1), every.row(-1)[:, 1:2], atol=1e-6, rtol=0)
    assert seen.bytes < full.bytes


@pytest.mark.parametrize("name", ["llama", "bart", "blip"])
def test_two_generations_in_one_recording(name: str) -> None:
    model, inputs = CASES[name]()
    other = {**inputs, "input_ids": inputs["input_ids"].flip(0)}
    with sightline.record(model) as seen:
        first, second = generate(model, inputs), generate(model, other)
    assert len(seen.passes) == 2
    assert [site.name for site in seen.passes[0]] == [site.name for site in seen.passes[1]]
    assert_equals_one_pass(name, model, inputs, seen.passes[0], first)
    assert_equals_one_pass(name, model, other, seen.passes[1], second)


def test_a_generation_after_a_plain_pass() -> None:
    model, inputs = tiny.gpt2()
    with sightline.record(model) as seen:
        call(model, inputs)
        sequences = generate(model, inputs)
    assert [len(sites) for sites in seen.passes] == [2, 2]
    assert not seen.passes[0][0].stepped
    assert_equals_one_pass("gpt2", model, inputs, seen.passes[1], sequences)


def test_a_dialogue_that_goes_on_from_its_cache() -> None:
    model, inputs = tiny.llama()
    ids = inputs["input_ids"]
    with torch.no_grad(), sightline.record(model) as seen:
        cache = model(ids[:, :5], use_cache=True).past_key_values
        model(ids[:, 5:], past_key_values=cache)
    assert [site.steps for site in seen] == [(5, 3), (5, 3)]
    assert_equals_one_pass("llama", model, inputs, seen, torch.cat([ids, ids[:, :1]], 1))


def test_a_recording_of_one_step_with_a_cache_from_outside() -> None:
    model, inputs = tiny.llama()
    ids = inputs["input_ids"]
    with torch.no_grad():
        cache = model(ids[:, :-1], use_cache=True).past_key_values
        with sightline.record(model) as seen:
            model(ids[:, -1:], past_key_values=cache)
    expected = eager(model, inputs)[1]
    for site in seen:
        assert site.kind == "self"
        assert site.query_index.tolist() == [ids.shape[1] - 1]
        torch.testing.assert_close(site.weights, expected[site.path][:, :, -1:], atol=1e-5, rtol=0)


def test_beams_are_recorded_as_they_ran() -> None:
    """Rows are those of the beam in each slot when the step ran; before a reordering that is another text's row."""
    model, inputs = tiny.bart()
    with sightline.record(model) as seen:
        generate(model, inputs, num_beams=3)
    for site in seen:
        in_encoder = "encoder.layers" in site.path
        assert site.batch == (2 if in_encoder else 6)
        torch.testing.assert_close(site.weights.sum(-1), torch.ones(site.weights.shape[:3]), atol=1e-5, rtol=0)
    # the beams of one input are equal while the prompt is read
    first = seen.site("model.decoder.layers.0.self_attn").weights[:, :, 0]
    torch.testing.assert_close(first[0:1].expand(3, -1, -1), first[:3])
