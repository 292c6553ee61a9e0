"""Calls that are noted until the model ends come out as if each had been looked at when it was made."""

import copy
import gc
import threading
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.bias import causal_lower_right

import sightline
from sightline.lens import alike, deferred, dispatch

OWN = F.scaled_dot_product_attention


class Attend(nn.Module):
    """Attention of four heads over tokens (batch, length, 16); `times` calls in one module call."""

    def __init__(self, *, times: int = 1, groups: int = 1, fused: bool = True, causal: bool = False) -> None:
        super().__init__()
        self.query, self.key, self.value = nn.Linear(16, 16), nn.Linear(16, 16 // groups), nn.Linear(16, 16 // groups)
        self.times, self.groups, self.fused, self.causal = times, groups, fused, causal

    def forward(self, tokens: Tensor, memory: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        other = tokens if memory is None else memory
        for _ in range(self.times):
            query = self.query(tokens).unflatten(-1, (-1, 4)).transpose(1, 2)
            key, value = (part(other).unflatten(-1, (-1, 4)).transpose(1, 2) for part in (self.key, self.value))
            if self.fused:
                given = {"enable_gqa": True} if self.groups > 1 else {}
                found = F.scaled_dot_product_attention(
                    query, key, value, attn_mask=mask, is_causal=self.causal, **given
                )
            else:
                found = (query @ key.mT / 2).softmax(-1) @ value
            tokens = tokens + found.transpose(1, 2).flatten(2)
        return tokens


class Net(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.body = nn.ModuleDict({"layers": nn.ModuleList(layers)})

    def forward(self, tokens: Tensor, memory: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        for number, layer in enumerate(self.body["layers"]):
            tokens = layer(tokens, memory if number % 2 else None, mask)
        return tokens


@pytest.fixture
def noting(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Holds calls on a CPU too; the numbers of calls that were looked at together."""
    looked: list[int] = []
    look = deferred.Deferred.look

    def watched(self: deferred.Deferred) -> None:
        if self.calls:
            looked.append(len(self.calls))
        look(self)

    monkeypatch.setattr(dispatch, "MODE_ALWAYS", False)
    monkeypatch.setattr(deferred, "EVERYWHERE", True)
    monkeypatch.setattr(deferred.Deferred, "look", watched)
    return looked


def told(model: nn.Module, *given: Tensor | None, **choices) -> list[tuple]:
    with torch.no_grad(), sightline.record(model, **choices) as seen:
        model(*given)
    return [(site.name, site.kind, site.query_index.tolist(), site.weights) for site in seen]


def compare(model: nn.Module, *given: Tensor | None, monkeypatch: pytest.MonkeyPatch, **choices) -> None:
    """Held or seen by the dispatcher, twice: a second recording knows all kinds of calls."""
    for _ in range(2):
        kept = told(model, *given, **choices)
        with monkeypatch.context() as patch:
            patch.setattr(deferred, "EVERYWHERE", False)
            seen = told(model, *given, **choices)
        assert [one[:3] for one in kept] == [one[:3] for one in seen]
        for one, other in zip(kept, seen, strict=True):
            torch.testing.assert_close(one[3], other[3], atol=1e-6, rtol=0)


LAYERS = {
    "self": [Attend() for _ in range(4)],
    "causal": [Attend(causal=True) for _ in range(3)],
    "twice in one call": [Attend(times=2), Attend(times=2)],
    "grouped heads": [Attend(groups=2), Attend(groups=2), Attend(groups=4)],
    "some written out": [Attend(), Attend(fused=False), Attend(), Attend(fused=False)],
    "in a part": [Net(Attend(), Attend()), Net(Attend())],
}


CHOICES = [None, sightline.CLS, sightline.LAST, 2, slice(1, 4), [0, 2]]


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize(
    ("queries", "limit"), [*((choice, 2**26) for choice in CHOICES), (None, 0), (sightline.CLS, 2000)]
)
def test_noted_or_seen_at_once_is_one(layers: str, queries, limit: int, noting: list[int], monkeypatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(deferred, "LIMIT", limit)
    model, tokens = Net(*copy.deepcopy(LAYERS[layers])), torch.randn(2, 5, 16)
    compare(model, tokens, monkeypatch=monkeypatch, queries=queries)
    if limit > 2000 and layers == "self":
        assert noting == [4, 4]
    if limit <= 2000:
        assert max(noting) < 4


@pytest.mark.parametrize("batch", [1, 3])
def test_other_sequences_masks_and_precisions(batch: int, noting: list[int], monkeypatch) -> None:
    torch.manual_seed(1)
    model = Net(*(Attend() for _ in range(4)))
    tokens, memory = torch.randn(batch, 5, 16), torch.randn(batch, 5, 16)
    mask = torch.ones(5, 5, dtype=torch.bool).tril()
    for given in ((tokens, memory), (tokens, None, mask), (tokens, memory, torch.randn(batch, 1, 5, 5))):
        compare(model, *given, monkeypatch=monkeypatch, queries=sightline.LAST)
    compare(model.bfloat16(), tokens.bfloat16(), monkeypatch=monkeypatch, queries=sightline.CLS)
    assert noting


def test_what_is_noted_comes_before_what_is_seen_later(noting: list[int]) -> None:
    model = Net(Attend(), Attend(fused=False), Attend(), nn.MultiheadAttention(16, 4, batch_first=True))
    model.body["layers"][3].forward = lambda x, memory, mask: nn.MultiheadAttention.forward(
        model.body["layers"][3], x, x, x, need_weights=False
    )[0]
    with torch.no_grad(), sightline.record(model) as seen:
        model(torch.randn(2, 5, 16))
    assert [site.path for site in seen] == [f"body.layers.{number}" for number in range(4)]
    assert noting[0] == 1


@pytest.mark.parametrize("small", [0, 100, 2**20])
@pytest.mark.parametrize("limit", [0, 200, 2**20])
def test_windows_one_by_one_are_one_site_however_they_are_looked_at(
    small: int, limit: int, noting: list[int], monkeypatch
) -> None:
    class Windows(nn.Module):
        def forward(self, tokens: Tensor, *_: Tensor | None) -> Tensor:
            parts = [F.scaled_dot_product_attention(part, part, part) for part in tokens[:, None].split([2, 3, 3], 2)]
            return torch.cat(parts, 2)[:, 0]

    monkeypatch.setattr(deferred, "SMALL", small)  # 2 x 4 numbers of query, key, value: 96 bytes, 3 x 4: 144
    monkeypatch.setattr(deferred, "LIMIT", limit)
    model, tokens = Net(Windows(), Windows()), torch.randn(1, 8, 4)
    for _ in range(2):
        found = told(model, tokens)
        assert [one[0] for one in found] == ["body.layers.0", "body.layers.1"]
        blocks = [tokens[0, start:stop] for start, stop in ((0, 2), (2, 5), (5, 8))]
        expected = torch.block_diag(*((block @ block.mT / 2).softmax(-1) for block in blocks))
        torch.testing.assert_close(found[0][3][0, 0], expected)


def test_a_function_scripted_meanwhile_is_torchs_own(noting: list[int]) -> None:
    def attend(x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x, x)

    tokens = torch.randn(1, 5, 16)
    with torch.no_grad(), sightline.record(Net(Attend())) as seen:
        scripted = torch.jit.script(attend)
        seen.model(tokens)
    assert len(seen) == 1
    torch.testing.assert_close(scripted(tokens), attend(tokens))


class Overwrites(Attend):
    """Writes to its key after the call, in one of these ways."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, tokens: Tensor, memory: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        key = self.key(tokens)[:, None]
        found = F.scaled_dot_product_attention(key, key, key)
        if self.how == "zeroed":
            key.zero_()
        elif self.how == "freed":
            key.untyped_storage().resize_(0)
        return tokens + found[:, 0]


@pytest.mark.parametrize("how", ["zeroed", "freed"])
def test_a_model_that_writes_to_a_key_is_told_once_and_recorded_then(how: str, noting: list[int]) -> None:
    model, tokens = Net(Overwrites(how), Attend()), torch.randn(1, 5, 16)
    with torch.no_grad():
        key = model.body["layers"][0].key(tokens)
        plain = model(tokens)
        with (
            pytest.warns(UserWarning, match=r"not recorded: a call in body.layers.0, whose query, .*once more"),
            sightline.record(model) as seen,
        ):
            torch.testing.assert_close(model(tokens), plain)
    assert [site.path for site in seen] == ["body.layers.1"]
    both = told(model, tokens)
    torch.testing.assert_close(both[0][3][0], (key @ key.mT / 4).softmax(-1))
    assert len(told(Net(Attend(), Attend()), tokens)) == 2
    assert noting == [2, 2]
    with pytest.raises(RuntimeError, match=r"no attention recorded: a call in body.layers.0, .*once more"):
        told(Net(Overwrites(how)), tokens)


def test_one_dictionary_of_arguments_for_all_modules(noting: list[int]) -> None:
    model, shared = Net(Attend(), Attend(times=2), Attend()), {}
    for layer in model.body["layers"]:
        layer.register_forward_pre_hook(lambda _module, args, _named: (args[:1], shared), with_kwargs=True)
    names = [one[0] for one in told(model, torch.randn(1, 5, 16))]
    assert names == ["body.layers.0", "body.layers.1", "body.layers.1#2", "body.layers.2"]


def test_an_interrupted_pass_is_not_taken_for_a_step_with_a_cache(noting: list[int]) -> None:
    class Decoder(nn.Module):
        def forward(self, tokens: Tensor, past_key_values: list | None = None) -> Tensor:
            F.scaled_dot_product_attention(tokens, tokens, tokens)
            if past_key_values is None:
                raise KeyboardInterrupt
            return tokens

    tokens = torch.randn(1, 1, 4, 8)
    with torch.no_grad(), sightline.record(Decoder(), queries=[0, 7]) as seen:
        with pytest.raises(KeyboardInterrupt):
            seen.model(tokens)
        seen.model(tokens, past_key_values=[None] * 5)
    assert [(call.cached, call.rows) for site in seen for call in site.calls] == [(0, [0]), (5, [2])]


def test_a_recording_that_nobody_has_read_can_be_copied_saved_and_forgotten(noting: list[int]) -> None:
    class Looks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, 16, 4, 4)

        def forward(self, pixels: Tensor) -> Tensor:
            tokens = self.patches(pixels).flatten(2).mT[:, None]
            return F.scaled_dot_product_attention(tokens, tokens, tokens)

    model = Looks()
    pixels = torch.randn(2, 3, 8, 8)
    expected = told(model, pixels, queries=sightline.CLS)[0][3]
    for way in (copy.deepcopy, copy.copy, lambda seen: seen):
        with torch.no_grad(), sightline.record(model, queries=sightline.CLS) as seen:
            model(pixels)
        torch.testing.assert_close(way(seen)[0].weights, expected)
    with torch.no_grad(), sightline.record(model, queries=sightline.CLS) as seen:
        model(pixels)
    seen.forget()
    assert seen.pixels is None
    assert seen[0].given.pixels is None


def test_torch_keeps_its_function_and_subclasses_of_tensors_theirs(noting: list[int]) -> None:
    class Biased(nn.Module):
        def forward(self, tokens: Tensor) -> Tensor:
            assert F.scaled_dot_product_attention is OWN
            return F.scaled_dot_product_attention(tokens, tokens, tokens, attn_mask=causal_lower_right(5, 5))

    tokens = torch.randn(1, 2, 5, 8)
    ((_, _, _, weights),) = told(Biased(), tokens)
    hidden = torch.ones(5, 5, dtype=torch.bool).triu(1)
    scores = (tokens @ tokens.mT * 8**-0.5).masked_fill(hidden, -torch.inf)
    torch.testing.assert_close(weights, scores.softmax(-1))


def test_recordings_within_recordings_and_failing_passes(noting: list[int]) -> None:
    class Fails(nn.Module):
        def forward(self, tokens: Tensor, *_: Tensor | None) -> Tensor:
            raise KeyError("on its way")

    model, tokens = Net(Attend(), Attend()), torch.randn(1, 5, 16)
    with (
        torch.no_grad(),
        sightline.record(model) as outer,
        sightline.record(model.body["layers"][1]) as inner,
    ):
        model(tokens)
    assert [len(outer), len(inner)] == [2, 1]
    with pytest.raises(KeyError), torch.no_grad(), sightline.record(Net(Attend(), Fails())) as seen:
        seen.model(tokens)
    assert len(told(model, tokens)) == 2


def test_an_interrupted_pass_does_not_spoil_the_next(noting: list[int]) -> None:
    class Interrupts(nn.Module):
        again = False

        def forward(self, tokens: Tensor, *_: Tensor | None) -> Tensor:
            if not self.again:
                self.again = True
                raise KeyboardInterrupt
            return tokens

    model, tokens = Net(Attend(), Interrupts(), Attend()), torch.randn(1, 5, 16)
    with torch.no_grad(), sightline.record(model) as seen:
        with pytest.raises(KeyboardInterrupt):
            model(tokens)
        model(tokens + 1)
    assert [[site.path for site in sites] for sites in seen.passes] == [
        ["body.layers.0"],
        ["body.layers.0", "body.layers.2"],
    ]
    expected = told(model, tokens + 1)
    torch.testing.assert_close(seen[1].weights, expected[0][3])


def test_a_function_that_somebody_else_put_there_stays(noting: list[int], monkeypatch) -> None:
    called = []

    def theirs(*args: Tensor, **kwargs) -> Tensor:
        called.append(1)
        return OWN(*args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", theirs)
    model, tokens = Net(Attend(), Attend()), torch.randn(1, 5, 16)
    assert len(told(model, tokens)) == len(called) == 2
    assert F.scaled_dot_product_attention is theirs
    assert noting == [2]


def test_another_thread_is_not_noted(noting: list[int]) -> None:
    model, other, tokens = Net(Attend()), Net(Attend(), Attend()), torch.randn(1, 5, 16)
    done: list[Tensor] = []

    class Waits(nn.Module):
        def forward(self, tokens: Tensor, *_: Tensor | None) -> Tensor:
            thread = threading.Thread(target=lambda: done.append(other(tokens)))
            thread.start()
            thread.join()
            return tokens

    model.body["layers"].append(Waits())
    assert [one[0] for one in told(model, tokens)] == ["body.layers.0"]
    assert len(done) == 1


def test_nothing_that_was_noted_lives_on(noting: list[int]) -> None:
    model, tokens = Net(Attend(), Attend()), torch.randn(1, 5, 16)
    alive: list[weakref.ref] = []
    project = model.body["layers"][0].key.forward

    def forward(tokens: Tensor) -> Tensor:
        found = project(tokens)
        alive.append(weakref.ref(found))
        return found

    model.body["layers"][0].key.forward = forward
    with torch.no_grad(), sightline.record(model, queries=sightline.CLS) as seen:
        model(tokens)
        gc.collect()
        assert [ref() for ref in alive] == [None]
    assert seen[0].weights.shape == (1, 4, 1, 5)


def test_calls_below_torch_func_are_refused_in_words(noting: list[int]) -> None:
    class Mapped(nn.Module):
        def forward(self, tokens: Tensor, *_: Tensor | None) -> Tensor:
            return torch.func.vmap(lambda one: F.scaled_dot_product_attention(one, one, one))(tokens[:, None])[:, 0]

    with pytest.raises(RuntimeError, match=r"torch\.func"):
        told(Net(Mapped()), torch.randn(2, 5, 16))


def test_sites_are_put_together_when_somebody_reads(noting: list[int]) -> None:
    model, tokens = Net(*(Attend() for _ in range(6))), torch.randn(1, 5, 16)
    expected = [one[3] for one in told(model, tokens, queries=sightline.CLS)]
    with torch.no_grad(), sightline.record(model, queries=sightline.CLS) as seen:
        model(tokens)
    found: list[tuple[int, Tensor]] = []
    readers = [threading.Thread(target=lambda n=n: found.append((n, seen[n].weights))) for n in range(6)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert len(found) == len(seen.passes[0]) == 6
    for number, weights in found:
        torch.testing.assert_close(weights, expected[number])
    assert seen.bytes == 6 * 4 * 5 * 4


def test_the_limit_holds_for_what_is_noted(noting: list[int]) -> None:
    model, tokens = Net(*(Attend() for _ in range(6))), torch.randn(1, 5, 16)
    for _ in range(2):
        with pytest.raises(ValueError, match="limit=239 bytes: 240 after"):
            told(model, tokens, queries=sightline.CLS, limit=239)


def test_a_model_that_changed_below_its_first_levels_is_told_by_its_new_names(noting: list[int]) -> None:
    model, tokens = Net(Net(Attend()), Attend()), torch.randn(1, 5, 16)
    assert [one[0] for one in told(model, tokens)] == ["body.layers.0.body.layers.0", "body.layers.1"]
    model.body["layers"][0].body["layers"].append(Attend())
    inner = ["body.layers.0.body.layers.0", "body.layers.0.body.layers.1"]
    assert [one[0] for one in told(model, tokens)] == [*inner, "body.layers.1"]
    model.body["layers"][0].body["layers"] = nn.ModuleList(reversed(model.body["layers"][0].body["layers"]))
    assert [one[0] for one in told(model, tokens)] == [*inner, "body.layers.1"]
    inside = model.body["layers"][0].body["layers"]
    model.body["layers"][0].body["blocks"] = inside
    del model.body["layers"][0].body["layers"]
    model.body["layers"][0].forward = lambda tokens, *_: inside[1](inside[0](tokens))
    renamed = ["body.layers.0.body.blocks.0", "body.layers.0.body.blocks.1", "body.layers.1"]
    assert [one[0] for one in told(model, tokens)] == renamed


@pytest.mark.parametrize("defers", [False, True])
def test_a_deep_part_that_has_become_one_with_a_fast_path(defers: bool, noting: list[int], monkeypatch) -> None:
    class Around(nn.Module):
        def __init__(self, inside: nn.Module) -> None:
            super().__init__()
            self.inside = inside

        def forward(self, x: Tensor, **named: Tensor) -> Tensor:
            return self.inside(x, **named)

    monkeypatch.setattr(deferred, "EVERYWHERE", defers)
    model, tokens = Around(Around(Around(Around(Attend())))).eval(), torch.randn(2, 5, 16)
    hold = model.inside.inside.inside
    assert [one[0] for one in told(model, tokens)] == ["inside.inside.inside.inside"]
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True).eval()
    hold.inside = layer
    assert [one[0] for one in told(model, tokens)] == ["inside.inside.inside.inside.self_attn"]
    hold.inside = nn.TransformerEncoder(layer, 1).eval()
    padding = torch.zeros(2, 5, dtype=torch.bool)
    padding[1, 3:] = True
    with torch.no_grad(), sightline.record(model) as seen:
        model(tokens, src_key_padding_mask=padding)
    assert [site.path for site in seen] == ["inside.inside.inside.inside.layers.0.self_attn"]


def test_kinds_are_not_remembered_without_end(monkeypatch) -> None:
    monkeypatch.setattr(alike, "_known", {})
    monkeypatch.setattr(alike, "_MOST", 3)
    model = Net(Attend(), Attend())
    for length in range(3, 10):
        assert len(told(model, torch.randn(1, length, 16), queries=sightline.CLS)) == 2
        assert len(alike._known) <= 3
