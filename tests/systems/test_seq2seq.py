"""Sequence to sequence: equal to the published implementation, to torch's GRU, and to itself step by step; masks."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

import sightline
from sightline.attention import observe
from sightline.decoding import beam_search, greedy
from sightline.systems.seq2seq import ATTENTIONS, Seq2Seq, rnnsearch

START, END = 1, 2


def tiny(attention: str = "additive", **more: object) -> Seq2Seq:
    torch.manual_seed(0)
    sizes = {"source_words": 11, "target_words": 13, "embedding": 6, "encoder": 4, "decoder": 8, **more}
    model = Seq2Seq(**sizes, attention=attention).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model


def some(batch: int = 3, source: int = 7, target: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, source + 1, (batch,), generator=generator)
    lengths[0] = source
    words = torch.randint(3, 11, (batch, source), generator=generator)
    written = torch.randint(3, 13, (batch, target), generator=generator)
    written[:, 0] = START
    return words * (torch.arange(source) < lengths[:, None]), lengths, written


# -- the golden kit ----------------------------------------------------------------------------------------------------


def from_notebook(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of bentrevett/pytorch-seq2seq's third notebook in ours; its one attention matrix reads [s; h]."""
    ours = {
        "source.weight": state["encoder.embedding.weight"],
        "target.weight": state["decoder.embedding.weight"],
        "first.weight": state["encoder.fc.weight"],
        "first.bias": state["encoder.fc.bias"],
        "decoder.attention.score.weight": state["decoder.attention.v_fc.weight"],
        "decoder.attention.key.bias": state["decoder.attention.attn_fc.bias"],
    }
    hidden = state["decoder.rnn.weight_hh_l0"].shape[1]
    both = state["decoder.attention.attn_fc.weight"]
    ours["decoder.attention.query.weight"] = both[:, :hidden]
    ours["decoder.attention.key.weight"] = both[:, hidden:]
    for name, tensor in state.items():
        if name.startswith("encoder.rnn."):
            ours["encoder.rnn." + name.removeprefix("encoder.rnn.")] = tensor
        if name.startswith("decoder.rnn."):
            ours["decoder.rnn." + name.removeprefix("decoder.rnn.")] = tensor
    out = state["decoder.fc_out.weight"]
    ours |= {"words.weight": out, "words.bias": state["decoder.fc_out.bias"]}
    return ours


@pytest.fixture
def golden(shared: Path) -> tuple[Seq2Seq, dict[str, Tensor], dict[str, Tensor], dict[str, float]]:
    kit = shared / "golden" / "seq2seq_attention"
    config = json.loads((kit / "config.json").read_text(encoding="utf-8"))
    sizes = config["hyper_parameters"]
    model = Seq2Seq(
        source_words=sizes["input_dim"],
        target_words=sizes["output_dim"],
        embedding=sizes["encoder_embedding_dim"],
        target_embedding=sizes["decoder_embedding_dim"],
        encoder=sizes["encoder_hidden_dim"],
        decoder=sizes["decoder_hidden_dim"],
        pad=1,
    ).eval()
    model.load_state_dict(from_notebook(load_file(kit / "weights.safetensors")))
    allowed = {name: output["atol"] for name, output in config["outputs"].items()}
    return model, load_file(kit / "inputs.safetensors"), load_file(kit / "outputs.safetensors"), allowed


def near(mine: Tensor, theirs: Tensor, atol: float) -> None:
    torch.testing.assert_close(mine, theirs, atol=atol, rtol=0)


@torch.no_grad()
def test_it_equals_the_published_implementation_teacher_forced(golden: tuple) -> None:
    model, inputs, outputs, allowed = golden
    source, target = inputs["src"].T, inputs["trg"].T
    lengths = torch.full((len(source),), source.shape[1])
    memory = model.read(source, lengths)
    near(memory.states, outputs["encoder_outputs"].transpose(0, 1), allowed["encoder_outputs"])
    near(model.begin(memory)[:, 0], outputs["decoder_init"], allowed["decoder_init"])
    with sightline.record(model) as seen:
        logits = model(source, lengths, target[:, :-1])
    near(logits, outputs["logits_forced"][1:].transpose(0, 1), allowed["logits_forced"])
    weights = torch.cat([site.weights for site in seen], dim=2)[:, 0]
    near(weights, outputs["attention_forced"].transpose(0, 1), allowed["attention_forced"])
    hidden = model.features(source, lengths, target[:, :-1])[..., : outputs["hidden_forced"].shape[2]]
    near(hidden, outputs["hidden_forced"].transpose(0, 1), allowed["hidden_forced"])
    loss = model.loss({"source": source, "lengths": lengths, "target": target})["loss"]
    near(loss, outputs["loss"], allowed["loss"])


@torch.no_grad()
def test_it_equals_the_published_implementation_fed_with_its_own_words(golden: tuple) -> None:
    model, inputs, outputs, allowed = golden
    source, target = inputs["src"].T, inputs["trg"].T
    step, state = model.steps(source, torch.full((len(source),), source.shape[1]))
    word = target[:, 0]
    heard: list[Tensor] = []
    for time in range(1, len(outputs["logits_free"])):
        with observe.listen(lambda weights, kind, name: heard.append(weights)):
            log_probs, state = step(word, state)
        near(log_probs, outputs["logits_free"][time].log_softmax(dim=1), 2 * allowed["logits_free"])
        near(heard[-1][:, 0, 0], outputs["attention_free"][time - 1], allowed["attention_free"])
        word = log_probs.argmax(dim=1)


# -- without the kit ---------------------------------------------------------------------------------------------------


def gru(rnn: torch.nn.GRU, given: Tensor, hidden: Tensor) -> Tensor:
    """One step of torch's own GRU cell."""
    return torch.gru_cell(given, hidden, rnn.weight_ih_l0, rnn.weight_hh_l0, rnn.bias_ih_l0, rnn.bias_hh_l0)


def plainly(model: Seq2Seq, words: Tensor, target: Tensor) -> Tensor:
    """One sentence without padding, written as the papers write it: a loop over words, nothing precomputed."""
    decoder = model.decoder
    states, last = model.encoder.rnn(model.source(words)[None])
    memory, summary = states[0], torch.cat([last[0, 0], last[1, 0]])
    hidden, logits = torch.tanh(model.first(summary)), []
    fed = torch.zeros(decoder.features)
    for word in model.target(target):
        if model.attention == "none":
            hidden = gru(decoder.rnn, torch.cat([word, summary])[None], hidden[None])[0]
            features = torch.cat([hidden, summary, word])
        elif model.attention == "additive":
            layer = decoder.attention
            meeting = torch.tanh(layer.query.weight @ hidden + memory @ layer.key.weight.T + layer.key.bias)
            context = (meeting @ layer.score.weight[0]).softmax(dim=0) @ memory
            hidden = gru(decoder.rnn, torch.cat([word, context])[None], hidden[None])[0]
            features = torch.cat([hidden, context, word])
        else:
            hidden = gru(decoder.rnn, torch.cat([word, fed])[None], hidden[None])[0]
            layer = decoder.attention
            if model.attention == "dot":
                scores = memory @ hidden
            elif model.attention == "general":
                scores = memory @ (layer.key.weight.T @ hidden)
            else:
                both = torch.cat([hidden.expand(len(memory), -1), memory], dim=1)
                mapped = both @ torch.cat([layer.query.weight, layer.key.weight], dim=1).T + layer.key.bias
                scores = torch.tanh(mapped) @ layer.score.weight[0]
            context = scores.softmax(dim=0) @ memory
            fed = features = torch.tanh(decoder.combine.weight @ torch.cat([context, hidden]))
        if model.readout is not None:
            features = torch.tanh(model.readout(features))
        logits.append(model.words(features))
    return torch.stack(logits)


@torch.no_grad()
@pytest.mark.parametrize("readout", [0, 5])
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_it_is_the_equations_of_the_papers_and_padding_changes_nothing(attention: str, readout: int) -> None:
    model = tiny(attention, readout=readout)
    source, lengths, target = some(batch=4)
    together = model(source, lengths, target)
    for row in range(4):
        alone = plainly(model, source[row, : lengths[row]], target[row])
        torch.testing.assert_close(together[row], alone, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_what_padding_holds_changes_nothing(attention: str) -> None:
    model = tiny(attention)
    source, lengths, target = some()
    hidden = torch.arange(7) >= lengths[:, None]
    other = torch.where(hidden, torch.full_like(source, 9), source)
    assert hidden.any()
    assert not torch.equal(source, other)
    torch.testing.assert_close(model(source, lengths, target), model(other, lengths, target), atol=0, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_later_target_words_do_not_reach_back(attention: str) -> None:
    model = tiny(attention)
    source, lengths, target = some()
    changed = target.clone()
    changed[:, 3:] = 12
    before, after = model(source, lengths, target), model(source, lengths, changed)
    torch.testing.assert_close(before[:, :3], after[:, :3], atol=1e-6, rtol=0)
    assert not torch.allclose(before[:, 3:], after[:, 3:])


@torch.no_grad()
@pytest.mark.parametrize("attention", ATTENTIONS)
@settings(deadline=None, max_examples=10)
@given(batch=st.integers(1, 4), source=st.integers(1, 9), target=st.integers(1, 6))
def test_step_by_step_is_teacher_forcing(attention: str, batch: int, source: int, target: int) -> None:
    model = tiny(attention, readout=6, embedding=6)
    words, lengths, written = some(batch, source, target)
    wanted = model(words, lengths, written).log_softmax(dim=2)
    step, state = model.steps(words, lengths)
    for time in range(target):
        log_probs, state = step(written[:, time], state)
        torch.testing.assert_close(log_probs, wanted[:, time], atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_beam_search_scores_are_those_of_a_teacher_forced_pass(attention: str) -> None:
    model = tiny(attention)
    source, lengths, _ = some(batch=5)
    found = beam_search(*model.steps(source, lengths), start=START, end=END, beam=4, keep=3, max_length=6)
    best = greedy(*model.steps(source, lengths), start=START, end=END, max_length=6)
    assert (found.scores[:, 0] >= best.scores - 1e-5).all()
    for row in range(5):
        for place in range(3):
            sequence = found.tokens[row, place, : int(found.lengths[row, place])]
            given = torch.cat([torch.tensor([START]), sequence[:-1]])[None]
            log_probs = model(source[row : row + 1], lengths[row : row + 1], given).log_softmax(dim=2)[0]
            total = log_probs.gather(1, sequence[:, None]).sum()
            torch.testing.assert_close(found.scores[row, place], total, atol=1e-4, rtol=0)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_gradients_reach_every_parameter_and_none_reach_padding(attention: str) -> None:
    model = tiny(attention, readout=6, embedding=6)
    source, lengths, target = some()
    target[1, 3:] = 0
    model.loss({"source": source, "lengths": lengths, "target": target}, 0.1)["loss"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert (model.source.weight.grad[0] == 0).all()


@torch.no_grad()
def test_the_loss_is_the_mean_over_words_that_count() -> None:
    model = tiny()
    source, lengths, target = some()
    target[1, 3:] = 0
    batch = {"source": source, "lengths": lengths, "target": target}
    logits = model(source, lengths, target[:, :-1]).flatten(0, 1)
    wanted = target[:, 1:].flatten()
    for smoothing in (0.0, 0.2):
        reference = F.cross_entropy(logits, wanted, ignore_index=0, label_smoothing=smoothing)
        found = model.loss(batch, smoothing)
        torch.testing.assert_close(found["loss"], reference, atol=1e-5, rtol=0)
        torch.testing.assert_close(found["plain"], F.cross_entropy(logits, wanted, ignore_index=0), atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("attention", ATTENTIONS[1:])
def test_the_lens_sees_where_each_word_looked(attention: str) -> None:
    model = tiny(attention)
    source, lengths, target = some()
    with sightline.record(model) as seen:
        model(source, lengths, target)
    weights = torch.cat([site.weights for site in seen], dim=2)
    assert weights.shape == (3, 1, 5, 7)
    torch.testing.assert_close(weights.sum(dim=3), torch.ones(3, 1, 5))
    assert (weights.masked_select((torch.arange(7) >= lengths[:, None])[:, None, None]) == 0).all()


def test_one_table_of_words_can_serve_three_ends() -> None:
    model = tiny(source_words=13, readout=6, embedding=6, tied=True)
    source, lengths, target = some()
    free = tiny(source_words=13, readout=6, embedding=6)
    free.load_state_dict(
        model.state_dict()
        | {"target.weight": model.source.weight, "words.weight": model.source.weight}
        | {"words.bias": model.bias},
        strict=False,
    )
    assert torch.equal(model(source, lengths, target), free(source, lengths, target))
    assert sum(p.numel() for p in free.parameters()) - sum(p.numel() for p in model.parameters()) == 2 * 13 * 6
    with pytest.raises(ValueError, match="source_words == target_words"):
        tiny(tied=True)


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    model = tiny("general", source_words=13, readout=6, embedding=6, tied=True)
    model.save_pretrained(tmp_path)
    source, lengths, target = some()
    again = sightline.load_checkpoint(tmp_path)
    assert torch.equal(model(source, lengths, target), again(source, lengths, target))


@torch.no_grad()
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_hypotheses_of_a_sentence_share_its_memory(attention: str) -> None:
    model = tiny(attention)
    source, lengths, target = some(batch=2)
    step, state = model.steps(source, lengths)
    _, state = step(target[:, 0], state)
    tokens = torch.tensor([3, 7, 9, 4, 4, 12])  # three of the first sentence, three of the second
    log_probs, after = step(tokens, state.repeat_interleave(3, dim=0))
    assert log_probs.shape == (6, 13)
    assert after.shape == (6, state.shape[1])
    for row, token in enumerate(tokens):
        place = slice(row // 3, row // 3 + 1)
        given = torch.stack([target[row // 3, 0], token])[None]
        wanted = model(source[place], lengths[place], given).log_softmax(dim=2)[0, 1]
        torch.testing.assert_close(log_probs[row], wanted, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("lengths", [[0, 7, 3], [7, 8, 3], [-1, 2, 3]])
def test_lengths_that_are_none_are_refused(lengths: list[int]) -> None:
    source, _, target = some()
    with pytest.raises(ValueError, match=r"lengths must lie in 1 \.\. 7"):
        tiny()(source, torch.tensor(lengths), target)


@torch.no_grad()
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_the_first_word_of_one_sentence_does_not_reach_another(attention: str) -> None:
    model = tiny(attention)
    source, lengths, target = some(batch=4)
    changed = source.clone()
    changed[2, 0] = 3 if changed[2, 0] != 3 else 4
    before, after = model(source, lengths, target), model(changed, lengths, target)
    others = torch.tensor([0, 1, 3])
    torch.testing.assert_close(before[others], after[others], atol=1e-6, rtol=0)
    assert not torch.allclose(before[2], after[2])


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="attention must be one of none"):
        tiny("local")
    with pytest.raises(ValueError, match="dot score"):
        tiny("dot", decoder=9)
    with torch.device("meta"):
        assert 40e6 < sum(p.numel() for p in rnnsearch().parameters()) < 90e6
