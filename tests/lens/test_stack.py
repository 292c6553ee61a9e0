"""Where a call happens, read from Python's stack: the same places as by hooks, and nothing is kept."""

import copy
import gc
import threading
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import sightline
from sightline.lens import dispatch

WIDTH = 8


class Attend(nn.Module):
    """Self-attention of one head, fused or written out, `times` in one call."""

    def __init__(self, fused=True, times=1):
        super().__init__()
        self.project, self.fused, self.times = nn.Linear(WIDTH, WIDTH), fused, times

    def forward(self, x, memory=None):
        for _ in range(self.times):
            query, key = self.project(x)[:, None], (x if memory is None else memory)[:, None]
            if self.fused:
                x = F.scaled_dot_product_attention(query, key, key)[:, 0]
            else:
                x = (torch.softmax(query @ key.mT * WIDTH**-0.5, -1) @ key)[:, 0]
        return x


class Block(nn.Module):
    def __init__(self, part):
        super().__init__()
        self.attn, self.norm = part, nn.LayerNorm(WIDTH)

    def forward(self, x, **named):
        return self.norm(x + self.attn(x, **named))


class Net(nn.Module):
    """Blocks at the fourth level: `inner.body.blocks.0.attn`."""

    def __init__(self, *blocks, before=None):
        super().__init__()
        self.inner = nn.ModuleDict({"body": nn.ModuleDict({"blocks": nn.ModuleList(blocks)})})
        self.before = before

    @property
    def blocks(self):
        return self.inner["body"]["blocks"]

    def forward(self, x):
        for number, block in enumerate(self.blocks):
            if self.before is not None:
                self.before(number, x)
            x = block(x)
        return x


@pytest.fixture(autouse=True)
def below(monkeypatch):
    monkeypatch.setattr(dispatch, "MODE_ALWAYS", False)


def recorded(run, model, **choices):
    with torch.no_grad(), sightline.record(model, **choices) as seen:
        run()
    return seen


def told(seen):
    return [(s.name, s.kind, s.source, s.queries, s.keys, s.weights.sum(-1).mean().item()) for s in seen]


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("fused", [True, False])
def test_places_are_the_same_both_ways(fused, times, monkeypatch):
    model, x = Net(*[Block(Attend(fused, times)) for _ in range(3)]), torch.randn(2, 5, WIDTH)
    memory = torch.randn(2, 7, WIDTH)

    def run():
        model(x)
        model.blocks[1](x, memory=memory)
        model(x)

    both = []
    for always in (False, True):
        monkeypatch.setattr(dispatch, "MODE_ALWAYS", always)
        both.append(recorded(run, model))
    assert told(both[0]) == told(both[1])
    assert [len(p) for p in both[0].passes] == [len(p) for p in both[1].passes]
    assert {s.path[-8:] for s in both[0]} == {"s.0.attn", "s.1.attn", "s.2.attn"}
    for one, other in zip(*both, strict=True):
        assert torch.equal(one.weights, other.weights)


def test_modules_inside_have_no_hooks_while_they_are_recorded():
    counts = []

    def count(number, _x):
        inside = model.blocks[number].modules()
        counts.append(sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in inside))

    model, x = Net(*[Block(Attend()) for _ in range(2)], before=count), torch.randn(2, 5, WIDTH)
    assert len(recorded(lambda: model(x), model)) == 2
    assert counts == [0, 0]
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._forward_hooks_always_called for m in model.modules())


@pytest.mark.parametrize("fails", [False, True])
def test_the_second_level_rests_while_a_model_runs_that_was_given_the_picture(fails):
    class Sees(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.ModuleList([Block(Attend())])

        def forward(self, picture):
            counts.append(len(self.body[0]._forward_hooks))
            if len(counts) == 1 and fails:
                raise ValueError("stop")
            return self.body[0](picture.mean(1))

    model, counts, picture = Sees(), [], torch.randn(2, 3, 5, WIDTH)

    def run():
        try:
            model(picture)
        except ValueError:
            counts.append(-1)
        counts.append(len(model.body[0]._forward_hooks))
        model(picture)

    seen = recorded(run, model)
    assert counts == [0, -1, 1, 0] if fails else [0, 1, 0]
    assert seen.pixels is not None
    assert {s.path for s in seen} == {"body.0.attn"}


def test_a_part_deep_inside_that_is_called_by_itself_begins_once():
    model, x = Net(*[Block(Attend(times=2)) for _ in range(3)]), torch.randn(2, 5, WIDTH)
    seen = recorded(lambda: model.blocks[1](x), model)
    assert [s.path for s in seen] == ["inner.body.blocks.1.attn"] * 2
    assert len(seen.passes) == 1
    assert seen.inputs["0"] is x
    seen = recorded(lambda: [model.blocks[1](x) for _ in range(2)], model)
    assert [len(p) for p in seen.passes] == [2, 2], "the same part called again begins another pass"


def test_nothing_of_the_model_lives_longer(monkeypatch):
    monkeypatch.setattr("sightline.lens.deferred.EVERYWHERE", False)
    held = []

    def look(_number, x):
        gc.disable()
        held.append(weakref.ref(x))

    model = Net(*[Block(Attend()) for _ in range(3)], before=look)
    with torch.no_grad(), sightline.record(model, queries=sightline.CLS) as seen:
        alive = []
        model.before = lambda number, x: (look(number, x), alive.append([r() is not None for r in held]))
        model(torch.randn(2, 5, WIDTH))
        assert [r() for r in held[1:]] == [None, None], "already while the recording is open"
    gc.enable()
    assert alive[-1] == [True, False, True], "the input, which the recording keeps, and what runs now"
    assert len(seen) == 3


def test_a_module_called_twice_and_a_module_that_calls_twice_are_told_apart():
    shared = Block(Attend())
    model, x = Net(shared, shared), torch.randn(2, 5, WIDTH)
    seen = recorded(lambda: model(x), model)
    assert [s.name for s in seen] == ["inner.body.blocks.0.attn", "inner.body.blocks.0.attn#2"]
    first, second = (s.calls[0].frame for s in seen)
    assert first != second
    twice = Net(Block(Attend(times=2)))
    first, second = (s.calls[0].frame for s in recorded(lambda: twice(x), twice))
    assert first == second


def test_hooks_of_the_model_and_replaced_forwards_change_no_name():
    model, x = Net(*[Block(Attend()) for _ in range(2)]), torch.randn(2, 5, WIDTH)
    attend = model.blocks[0].attn
    attend.register_forward_pre_hook(lambda _module, args: (args[0] * 1,))
    attend.register_forward_hook(lambda _module, args, output: output * 1)
    plain = model.blocks[1].attn.forward
    model.blocks[1].attn.forward = lambda *args, **kwargs: plain(*args, **kwargs)
    seen = recorded(lambda: model(x), model)
    assert [s.path for s in seen] == ["inner.body.blocks.0.attn", "inner.body.blocks.1.attn"]
    assert [s.kind for s in seen] == ["self", "self"]


def test_a_forward_called_directly_bears_the_name_around_it():
    class Direct(Block):
        def forward(self, x):
            return self.attn.forward(x)

    model = Net(Direct(Attend()))
    assert [s.path for s in recorded(lambda: model(torch.randn(2, 5, WIDTH)), model)] == ["inner.body.blocks.0"]


def test_replicas_are_known_by_the_hooks_that_they_share():
    model, x = Net(Block(Attend())), torch.randn(2, 5, WIDTH)
    replica = copy.copy(model.blocks[0].attn)
    model.before = lambda _number, x: replica(x)
    assert [s.name for s in recorded(lambda: model(x), model)] == [
        "inner.body.blocks.0.attn",
        "inner.body.blocks.0.attn#2",
    ]


def test_recomputation_in_backward_is_not_another_pass():
    model, x = Net(*[Block(Attend()) for _ in range(2)]), torch.randn(2, 5, WIDTH, requires_grad=True)
    with sightline.record(model) as seen:
        checkpoint(model.blocks[0], x, use_reentrant=False).sum().backward()
        checkpoint(model, x, use_reentrant=False).sum().backward()
    assert [s.path[-8:] for s in seen] == ["s.0.attn", "s.0.attn", "s.1.attn"]


def test_a_recording_inside_a_running_module_and_one_after_it():
    model, x, seen = Net(Block(Attend())), torch.randn(2, 5, WIDTH), []

    class Looks(nn.Module):
        def forward(self, x):
            for _ in range(2):
                seen.append(recorded(lambda: model.blocks[0](x), model))
            return x

    Looks()(x)
    assert [[s.path for s in one] for one in seen] == [["inner.body.blocks.0.attn"]] * 2


def test_threads_have_their_own_stacks():
    x, names = torch.randn(2, 5, WIDTH), []

    def work():
        model = Net(*[Block(Attend()) for _ in range(2)])
        names.append([s.path[-8:] for s in recorded(lambda: model(x), model)])

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names == [["s.0.attn", "s.1.attn"]] * 3


def test_modules_that_run_in_another_way_are_recorded_by_hooks(monkeypatch):
    model, x = Net(Block(Attend())), torch.randn(2, 5, WIDTH)
    plain = nn.Module._call_impl
    monkeypatch.setattr(nn.Module, "_call_impl", lambda self, *args, **kwargs: plain(self, *args, **kwargs))
    assert not dispatch.shows_all(model)
    assert [s.path for s in recorded(lambda: model(x), model)] == ["inner.body.blocks.0.attn"]
