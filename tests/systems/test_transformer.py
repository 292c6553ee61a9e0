"""The Transformer: equal to torch's own and to the Annotated Transformer; writing with a cache equals reading again."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn

import sightline
from sightline.attention import masks
from sightline.attention.cache import Cache
from sightline.checkpoints.load import load_checkpoint
from sightline.decoding import Decoded, beam_search, greedy
from sightline.objectives.label_smoothing import smoothed_divergence
from sightline.systems.transformer import Transformer, transformer_base

WORDS, PAD, START, END = 23, 0, 1, 2


def model(**more: object) -> Transformer:
    torch.manual_seed(0)
    usual = {"words": WORDS, "dim": 16, "depth": 2, "heads": 4, "hidden": 24, "dropout": 0.0}
    made = Transformer(**usual | more).eval()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    return made


def sentences(count: int = 3, longest: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    lengths = torch.tensor([longest, 2, 5][:count])
    source = torch.randint(3, WORDS, (count, longest))
    return source.where(torch.arange(longest) < lengths[:, None], PAD), lengths, torch.randint(3, WORDS, (count, 6))


# -- equal to torch ----------------------------------------------------------------------------------------------------


def theirs_of(mine: Transformer, norm_first: bool) -> nn.Transformer:
    """torch's own with the weights of `mine`."""
    theirs = nn.Transformer(16, 4, 2, 2, 24, 0.0, batch_first=True, norm_first=norm_first).eval()
    sides = ((theirs.encoder, mine.encoder, False), (theirs.decoder, mine.decoder, True))
    for side, other, crossed in sides:
        if norm_first:
            side.norm.load_state_dict(other.norm.state_dict())
        else:
            side.norm = None  # torch adds one that the paper does not have
        for layer, ours in zip(side.layers, other.layers, strict=True):
            parts = [(layer.self_attn, ours.attention)] + ([(layer.multihead_attn, ours.cross)] if crossed else [])
            for attention, own in parts:
                linears = (own.query, own.key, own.value)
                attention.in_proj_weight.data = torch.cat([linear.weight for linear in linears]).data
                attention.in_proj_bias.data = torch.cat([linear.bias for linear in linears]).data
                attention.out_proj.load_state_dict(own.output.state_dict())
            norms = [ours.attention_norm, *([ours.cross_norm] if crossed else []), ours.feedforward_norm]
            for number, norm in enumerate(norms, 1):
                getattr(layer, f"norm{number}").load_state_dict(norm.state_dict())
            layer.linear1.load_state_dict(ours.feedforward.expand.state_dict())
            layer.linear2.load_state_dict(ours.feedforward.contract.state_dict())
    return theirs


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_equal_to_torch(norm: str) -> None:
    mine = model(norm=norm)
    theirs = theirs_of(mine, norm == "pre")
    source, lengths, target = sentences()
    hidden = ~masks.padding(lengths, 7)[:, 0, 0]
    features = theirs(
        mine.embed(mine.source, source),
        mine.embed(mine.source, target),
        tgt_mask=~masks.causal(6)[0, 0],
        src_key_padding_mask=hidden,
        memory_key_padding_mask=hidden,
    )
    torch.testing.assert_close(mine(source, lengths, target), mine.logits(features), atol=1e-5, rtol=0)


# -- equal to the Annotated Transformer --------------------------------------------------------------------------------


def test_equal_to_the_annotated_transformer(shared: Path) -> None:
    kit = shared / "golden" / "annotated_transformer"
    given, wanted = load_file(kit / "inputs.safetensors"), load_file(kit / "outputs.safetensors")
    mine = load_checkpoint(kit / "weights.safetensors", heads=4)
    assert isinstance(mine, Transformer)
    source, target = given["src"], given["tgt"][:, :-1]
    lengths = (source != mine.pad).sum(dim=1)
    mask = masks.combine(masks.padding((target != mine.pad).sum(dim=1), 8), masks.causal(8))
    torch.testing.assert_close(mask[:, 0], wanted["tgt_mask"])
    with torch.no_grad(), sightline.record(mine) as seen:
        memory = mine.read(source, lengths)
        features = mine.write(target, memory, mask)
    torch.testing.assert_close(memory.mask[:, 0], wanted["src_mask"])
    log_probs = mine.logits(features).log_softmax(dim=2)
    close(mine.embed(mine.source, source), wanted["src_embedded"], 9.7e-5)
    close(memory.states, wanted["memory"], 3e-5)
    close(features, wanted["decoder_out"], 3.3e-5)
    close(log_probs, wanted["log_probs"], 7.1e-5)
    found = {site.path: site.weights for site in seen.sites}
    for name, path in (("enc_self", "encoder.layers.{}.attention"), ("dec_self", "decoder.layers.{}.attention")):
        for layer in range(2):
            close(found[path.format(layer)], wanted[f"{name}_attn_{layer}"], 1e-5)
    for layer in range(2):
        close(found[f"decoder.layers.{layer}.cross"], wanted[f"dec_src_attn_{layer}"], 1e-5)
    labels = given["tgt"][:, 1:].flatten()
    total = smoothed_divergence(log_probs.flatten(0, 1), labels, smoothing=0.1, pad=mine.pad)
    close(total, wanted["label_smoothing_sum"], 7e-4)
    close(total / (labels != mine.pad).sum(), wanted["label_smoothing_per_token"], 3.9e-5)


def close(mine: Tensor, wanted: Tensor, atol: float) -> None:
    torch.testing.assert_close(mine, wanted, atol=atol, rtol=0)


# -- masks -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("positions", ["interleaved", "concatenated", "halves", "none"])
@pytest.mark.parametrize("norm", ["post", "pre"])
def test_padding_and_the_future_change_nothing(norm: str, positions: str) -> None:
    mine = model(norm=norm, positions=positions)
    source, lengths, target = sentences()
    first = mine(source, lengths, target)
    noisy = source.where(torch.arange(7) < lengths[:, None], 9)
    later = target.clone()
    later[:, 4:] = 5
    second = mine(noisy, lengths, later)
    torch.testing.assert_close(first[:, :4], second[:, :4], atol=1e-6, rtol=0)
    assert not torch.allclose(first[:, 4:], second[:, 4:], atol=1e-3)


def test_an_unmasked_future_is_seen() -> None:
    mine = model(causal=False)
    source, lengths, target = sentences()
    later = target.clone()
    later[:, -1] = 5
    assert not torch.allclose(mine(source, lengths, target)[:, 0], mine(source, lengths, later)[:, 0], atol=1e-3)


def test_without_positions_the_order_of_the_source_means_nothing() -> None:
    source, lengths, target = sentences(1)
    turned = source.flip(1)
    for positions, same in (("none", True), ("interleaved", False)):
        mine = model(positions=positions)
        assert torch.allclose(mine(source, lengths, target), mine(turned, lengths, target), atol=1e-5) is same


# -- writing with a cache ----------------------------------------------------------------------------------------------


def again(mine: Transformer, source: Tensor, lengths: Tensor, beams: int) -> tuple[Callable, Tensor]:
    """A step without a cache: the state is all words so far, and everything is computed anew."""
    memory = mine.read(source, lengths)

    def step(tokens: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        written = torch.cat([before, tokens[:, None]], dim=1)
        times = len(written) // len(source)
        states = memory.states.repeat_interleave(times, dim=0)
        mask = None if memory.mask is None else memory.mask.repeat_interleave(times, dim=0)
        features = mine.write(written, memory._replace(states=states, mask=mask))
        return mine.logits(features[:, -1]).log_softmax(dim=1), written

    return step, torch.zeros(len(source), 0, dtype=torch.long)


def searched(way: str, step: Callable, state: object) -> Decoded:
    if way == "greedy":
        return greedy(step, state, start=START, end=END, max_length=20)
    return beam_search(step, state, start=START, end=END, beam=4, max_length=20, length_penalty=0.6)


@pytest.mark.parametrize("way", ["greedy", "beam"])
@pytest.mark.parametrize("norm", ["post", "pre"])
def test_a_cache_changes_nothing(norm: str, way: str) -> None:
    mine = model(norm=norm).double()
    source, lengths, _ = sentences()
    ends: set[int] = set()
    for _ in range(5):  # the end grows more likely from time to time
        mine.bias.data[END] += 0.6
        with torch.no_grad():
            cached = searched(way, *mine.steps(source, lengths))
            plain = searched(way, *again(mine, source, lengths, 4))
        assert torch.equal(cached.tokens, plain.tokens)
        assert torch.equal(cached.lengths, plain.lengths)
        torch.testing.assert_close(cached.scores, plain.scores, atol=1e-12, rtol=0)
        ends |= set(cached.lengths.flatten().tolist())
    assert len(ends) > 1, "some should end before others"


def replayed(mine: Transformer, source: Tensor, lengths: Tensor) -> tuple[Callable, Tensor]:
    """A step that keeps nothing: all words so far are put into a new cache, one after another."""
    step, _ = mine.steps(source, lengths)

    def replay(tokens: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        written = torch.cat([before, tokens[:, None]], dim=1)
        cache, times = Cache(layers=len(mine.decoder.layers), rows=len(source)), len(written) // len(source)
        for place, word in enumerate(written.unbind(dim=1)):
            if place == 1:  # a search begins with one hypothesis of each sentence
                cache = cache.take(torch.arange(len(source)).repeat_interleave(times))
            log_probs, cache = step(word if place else word[::times], cache)
        return log_probs, written

    return replay, torch.zeros(len(source), 0, dtype=torch.long)


@pytest.mark.parametrize("way", ["greedy", "beam"])
@pytest.mark.parametrize("norm", ["post", "pre"])
def test_a_cache_that_was_reordered_and_has_grown_is_equal_bit_for_bit(norm: str, way: str) -> None:
    mine = model(norm=norm).double()
    mine.bias.data[END] = -1.0  # long enough for the buffer to grow
    source, lengths, _ = sentences()
    with torch.no_grad():
        kept = searched(way, *mine.steps(source, lengths))
        anew = searched(way, *replayed(mine, source, lengths))
    assert kept.lengths.max() > 16
    for name in ("tokens", "lengths", "scores"):
        assert torch.equal(getattr(kept, name), getattr(anew, name)), name


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 40), st.sampled_from(["post", "pre"]), st.booleans())
def test_steps_give_what_all_words_at_once_give(length: int, norm: str, shared_table: bool) -> None:
    mine = model(norm=norm, words=WORDS if shared_table else (WORDS, 31)).double()
    source, lengths, _ = sentences()
    target = torch.randint(3, WORDS, (3, length))
    with torch.no_grad():
        wanted = mine(source, lengths, target).log_softmax(dim=2)
        step, state = mine.steps(source, lengths)
        found = []
        for word in target.unbind(dim=1):
            log_probs, state = step(word, state)
            found.append(log_probs)
    torch.testing.assert_close(torch.stack(found, dim=1), wanted, atol=1e-12, rtol=0)


def test_hypotheses_share_their_sentence_s_memory_and_never_another_s() -> None:
    mine = model().double()
    source, lengths, _ = sentences()
    with torch.no_grad():
        together = searched("beam", *mine.steps(source, lengths))
        for row in range(3):
            own = int(lengths[row])
            alone = searched("beam", *mine.steps(source[row : row + 1, :own], lengths[row : row + 1]))
            assert torch.equal(together.tokens[row], alone.tokens[0])


# -- the lens ----------------------------------------------------------------------------------------------------------


def test_every_head_is_seen_while_reading_and_while_writing_with_a_cache() -> None:
    mine = model()
    source, lengths, target = sentences()
    with torch.no_grad(), sightline.record(mine) as whole:
        mine(source, lengths, target)
    assert [(site.path, site.kind) for site in whole.sites] == [
        ("encoder.layers.0.attention", "self"),
        ("encoder.layers.1.attention", "self"),
        ("decoder.layers.0.attention", "self"),
        ("decoder.layers.0.cross", "cross"),
        ("decoder.layers.1.attention", "self"),
        ("decoder.layers.1.cross", "cross"),
    ]
    assert [tuple(site.weights.shape) for site in whole.sites[:4:3]] == [(3, 4, 7, 7), (3, 4, 6, 7)]
    with torch.no_grad():
        step, state = mine.steps(source, lengths)
        for place, word in enumerate(target.unbind(dim=1)):
            with sightline.record(mine.decoder) as seen:
                _, state = step(word, state)
            assert [site.kind for site in seen.sites] == ["self", "cross"] * 2
            for now, then in zip(seen.sites, whole.sites[2:], strict=True):
                keys = place + 1 if now.kind == "self" else 7
                torch.testing.assert_close(now.weights[:, :, 0], then.weights[:, :, place, :keys], atol=1e-6, rtol=0)


# -- the rest ----------------------------------------------------------------------------------------------------------


def test_every_parameter_learns_and_the_loss_counts_words_only() -> None:
    mine = model()
    source, lengths, target = sentences()
    batch = {"source": source, "lengths": lengths, "target": target}
    found = mine.loss(batch, smoothing=0.1)
    found["loss"].backward()
    silent = [n for n, p in mine.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert not [name for name in silent if not name.endswith("key.bias")]  # a softmax does not see those
    padded = torch.cat([target, torch.full((3, 4), PAD)], dim=1)
    torch.testing.assert_close(mine.loss(batch | {"target": padded}, smoothing=0.1)["loss"], found["loss"])
    assert found["plain"] == mine.loss(batch, smoothing=0.0)["loss"]


def test_the_paper_s_size() -> None:
    with torch.device("meta"):
        parameters = sum(p.numel() for p in transformer_base().parameters())
    attention, feedforward, norm = 4 * (512 * 512 + 512), 2 * 512 * 2048 + 2048 + 512, 2 * 512
    layers = 6 * (attention + feedforward + 2 * norm) + 6 * (2 * attention + feedforward + 3 * norm)
    assert parameters == 37_000 * 512 + 37_000 + layers  # the paper says 65 million


def test_it_is_saved_and_opened(tmp_path: Path) -> None:
    mine = model(words=(WORDS, 31), depth=(1, 2))
    mine.save_pretrained(tmp_path)
    other = load_checkpoint(tmp_path)
    source, lengths, target = sentences()
    torch.testing.assert_close(other(source, lengths, target), mine(source, lengths, target))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"norm": "both"}, "norm must be one of post, pre"),
        ({"positions": "learned"}, "positions must be one of interleaved"),
        ({"activation": "tanh"}, "activation must be one of relu"),
        ({"depth": [1, 2, 3]}, "depth and words are one number or"),
        ({"words": 0}, "depth and words are one number or"),
        ({"heads": 5}, "dim must be a multiple of heads"),
    ],
)
def test_values_that_do_not_fit_are_refused(given: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        model(**given)
