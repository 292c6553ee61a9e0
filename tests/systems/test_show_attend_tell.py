"""Show, Attend and Tell (soft, hard, three forms) and its control against naive loops and their own claims."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

import sightline
from sightline.attention import hard
from sightline.blocks.packed import Packed
from sightline.decoding import beam_search, greedy
from sightline.systems.show_and_tell import ShowAndTell, show_and_tell_coco
from sightline.systems.show_attend_tell import FORMS, ShowAttendTell, show_attend_tell_coco, show_attend_tell_port

SIZES = {"vocab": 13, "width": 10, "embedding": 6, "hidden": 8, "attention": 7}
TOKENS = torch.tensor([[1, 5, 6, 2, 0, 0], [1, 7, 2, 0, 0, 0], [1, 4, 4, 9, 8, 2], [1, 12, 6, 2, 0, 0]])


def network(**more: object) -> ShowAttendTell:
    torch.manual_seed(0)
    return ShowAttendTell(**SIZES, **more).eval()  # type: ignore[arg-type]


def step_by_step(model: ShowAttendTell, features: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """One caption, one word after the other, through the decoder that generates: logits and weights of each step."""
    step, state = model.decoder(features)
    with torch.no_grad():
        said, seen = [], []
        for token in tokens:
            before = state
            log_probs, state = step(token[None], before)
            weights = model.attention.weigh(before[0][:, None], model.keys(model.annotations(features)))
            said.append(log_probs[0])
            seen.append(weights[0, 0])
    return torch.stack(said), torch.stack(seen)


@pytest.mark.parametrize("form", FORMS)
def test_reading_many_captions_at_once_equals_one_word_after_the_other(form: str) -> None:
    model, features = network(form=form), torch.rand(2, 9, 10)
    with torch.no_grad():
        told = model(features, TOKENS)
    assert told.weights is not None
    logits = told.unpacked()
    for row in range(4):
        length = int((TOKENS[row] != 0).sum()) - 1
        log_probs, weights = step_by_step(model, features[row // 2][None], TOKENS[row, :length])
        torch.testing.assert_close(logits[row, :length].log_softmax(dim=1), log_probs)
        torch.testing.assert_close(told.weights[row, :length], weights)
        assert not logits[row, length:].any()
        assert not told.weights[row, length:].any()
    assert torch.equal(told.targets, TOKENS[told.captions, told.steps + 1])


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=7))
@settings(max_examples=30, deadline=None)
def test_packing_keeps_every_word_once(lengths: list[int]) -> None:
    tokens = torch.zeros(len(lengths), max(lengths) + 1, dtype=torch.long)
    for row, length in enumerate(lengths):
        tokens[row, : length + 1] = torch.arange(1, length + 2)
    packed = Packed(tokens)
    assert all(carried >= active for carried, active in zip(packed.carried, packed.active, strict=True))
    marked = [torch.full((rows, 1), float(step)) for step, rows in enumerate(packed.carried)]
    outputs, targets, captions, steps = packed.written(marked)
    assert torch.equal(outputs[:, 0].long(), steps)
    assert torch.equal(targets, tokens[captions, steps + 1])
    assert sorted(zip(captions.tolist(), steps.tolist(), strict=True)) == [
        (row, step) for row, length in enumerate(lengths) for step in range(length)
    ]
    assert packed.read.tolist() == [int(v) for t, n in enumerate(packed.carried) for v in packed.tokens[:n, t]]


def test_a_caption_without_words_is_refused() -> None:
    with pytest.raises(ValueError, match="start token and at least one more"):
        Packed(torch.tensor([[1, 2], [1, 0]]))


def test_other_words_and_pictures_change_nothing() -> None:
    model, features = network(form="compact"), torch.rand(4, 9, 10)
    logits = model(features, TOKENS).unpacked()
    other = features.clone()
    other[1] += 1
    assert torch.equal(model(other, TOKENS).unpacked()[[0, 2, 3]], logits[[0, 2, 3]])
    later = TOKENS.clone()
    later[2, 4] = 10  # what comes later may not change what is said before
    torch.testing.assert_close(model(features, later).unpacked()[2, :4], logits[2, :4])


@pytest.mark.parametrize("form", FORMS)
def test_gradients_reach_every_parameter(form: str) -> None:
    model = network(form=form, init_layers=2, attention_layers=2).train()
    batch = {"features": torch.rand(2, 9, 10), "tokens": TOKENS.view(2, 2, 6)}
    model.loss(batch, 0.1)["loss"].backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert not missing


def test_the_objective_is_the_papers() -> None:
    model, features = network(dropout=0.0), torch.rand(4, 9, 10)
    told, parts = model(features, TOKENS), model.loss({"features": features, "tokens": TOKENS})
    assert told.weights is not None
    cost, missed = 0.0, 0.0
    for row in range(4):
        length = int((TOKENS[row] != 0).sum()) - 1
        cost += F.cross_entropy(told.unpacked()[row, :length], TOKENS[row, 1 : length + 1], reduction="sum").item() / 4
        missed += ((1 - told.weights[row].sum(dim=0)) ** 2).sum().item() / 4
    words = len(told.targets) / 4
    assert parts["loss"].item() == pytest.approx((cost + model.balance * missed) / words, rel=1e-5)


# -- hard attention ----------------------------------------------------------------------------------------------------


def test_draws_follow_the_weights_and_pass_no_gradient() -> None:
    torch.manual_seed(0)
    weights = torch.tensor([0.1, 0.6, 0.0, 0.3], requires_grad=True)
    drawn = hard.draw(weights.expand(20_000, 4))
    assert torch.equal(drawn.sum(dim=1), torch.ones(20_000))
    assert (drawn.mean(dim=0) - weights).abs().max() < 0.015
    assert not drawn.requires_grad
    assert torch.equal(hard.likeliest(weights), torch.tensor([0.0, 1.0, 0.0, 0.0]))
    assert torch.equal(hard.log_chance(weights, hard.likeliest(weights)), weights[1].log())
    assert hard.log_chance(weights, torch.zeros(4)) == 0
    assert hard.entropy(torch.full((4,), 0.25)).item() == pytest.approx(1.386294, abs=1e-5)
    assert hard.entropy(torch.tensor([1.0, 0, 0])) == 0


def test_hard_attention_looks_at_one_place_or_reads_the_mean_over_places() -> None:
    model, features = network(kind="hard"), torch.rand(4, 9, 10)
    mean = model(features, TOKENS)
    soft = network(kind="soft")
    soft.load_state_dict(model.state_dict())
    assert mean.weights is mean.looked or torch.equal(mean.weights, mean.looked)  # type: ignore[arg-type]
    assert torch.equal(mean.logits, soft(features, TOKENS).logits)
    model.one_place = True
    told = model(features, TOKENS)
    assert not torch.equal(told.logits, mean.logits)
    assert told.weights is not None and told.looked is not None  # noqa: PT018
    length = (TOKENS != 0).sum(dim=1) - 1
    assert torch.equal(told.looked.sum(dim=(1, 2)).long(), length)
    assert set(told.looked.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(told.looked[0, 0].argmax(), told.weights[0, 0].argmax())


def test_hard_attention_learns_where_the_answer_is() -> None:
    """Only one of four cells tells the word; REINFORCE must find it though no gradient goes through the choice."""
    torch.manual_seed(0)
    model = ShowAttendTell(vocab=8, width=9, embedding=8, hidden=16, attention=16, dropout=0.0, kind="hard")
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        model.loss(_marked(64))["loss"].backward()
        optimizer.step()
    model.eval()
    batch = _marked(200)
    told = model(batch["features"], batch["tokens"])
    assert told.looked is not None
    right = batch["features"][:, :, 8].argmax(dim=1)
    assert (told.looked[:, 0].argmax(dim=1) == right).float().mean() > 0.9
    assert model.baseline != 0


def _marked(count: int) -> dict[str, Tensor]:
    words, places = torch.randint(4, 8, (count, 4)), torch.randint(0, 4, (count,))
    features = torch.cat([F.one_hot(words, 8).float(), F.one_hot(places, 4)[..., None].float()], dim=2)
    said = words.gather(1, places[:, None])
    tokens = torch.cat([torch.ones(count, 1, dtype=torch.long), said, torch.full((count, 1), 2)], dim=1)
    return {"features": features, "tokens": tokens}


# -- decoding and the control ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [network, lambda: ShowAndTell(vocab=13, width=10, embedding=6, hidden=8).eval()])
def test_beams_share_one_picture(make: type[ShowAttendTell]) -> None:
    torch.manual_seed(1)
    model = make()
    features = torch.rand(3, 9, 10)
    given_to = {"start": 1, "end": 2, "max_length": 6, "blocked": (0, 3)}
    together = beam_search(*model.decoder(features), beam=4, **given_to).lists()
    alone = [beam_search(*model.decoder(one[None]), beam=4, **given_to).lists()[0] for one in features]
    assert together == alone
    one_beam = beam_search(*model.decoder(features), beam=1, **given_to).lists()
    assert one_beam == greedy(*model.decoder(features), **given_to).lists()
    said = torch.tensor([[1, *together[0], 2]])
    log_probs = model(features[:1], said).logits.log_softmax(dim=1)
    score = beam_search(*model.decoder(features[:1]), beam=4, **given_to).scores[0, 0]
    assert log_probs.gather(1, said[0, 1:, None]).sum().item() == pytest.approx(score.item(), abs=1e-4)


def test_the_control_sees_the_picture_as_its_first_word() -> None:
    torch.manual_seed(0)
    model = ShowAndTell(vocab=13, width=10, embedding=6, hidden=8).eval()
    features = torch.rand(2, 9, 10)
    logits = model(features, TOKENS).unpacked()
    for row in range(4):
        length = int((TOKENS[row] != 0).sum()) - 1
        words = torch.cat([model.look(features[row // 2][None]), model.embedding(TOKENS[row, :length])])
        hidden, _ = model.lstm(words[None])
        torch.testing.assert_close(logits[row, :length], model.head(hidden[0, 1:]))
    shuffled = features[:, torch.randperm(9)]
    torch.testing.assert_close(model(shuffled, TOKENS).unpacked(), logits)


def test_the_lens_sees_every_step() -> None:
    model, features = network(form="compact"), torch.rand(1, 9, 10)
    with sightline.record(model) as seen:
        told = model(features, TOKENS[2:3])
    assert told.weights is not None
    weights = torch.cat([site.weights for site in seen], dim=2)
    torch.testing.assert_close(weights[0, 0], told.weights[0])


def test_presets_have_the_published_sizes() -> None:
    with torch.device("meta"):
        assert show_attend_tell_coco().recall.in_features == 1800
        assert show_attend_tell_port(9490).head.weight.shape == (9490, 512)  # type: ignore[union-attr]
        assert show_and_tell_coco().lstm.hidden_size == 512
    with pytest.raises(ValueError, match="form is one of"):
        ShowAttendTell(vocab=9, form="deep")
