"""Reports reach listeners of the same thread, inside the block only."""

import threading

import pytest
import torch

from sightline.attention import observe

WEIGHTS = torch.full((1, 2, 3, 4), 0.25)


def test_a_listener_hears_reports_inside_its_block_only() -> None:
    heard: list[tuple[torch.Tensor, str, str]] = []
    observe.report(WEIGHTS)
    with observe.listen(lambda *said: heard.append(said)):
        observe.report(WEIGHTS, kind="cross", name="glimpse")
    observe.report(WEIGHTS)
    assert len(heard) == 1
    assert heard[0][0] is WEIGHTS
    assert heard[0][1:] == ("cross", "glimpse")


def test_listeners_nest_and_leave_even_on_errors() -> None:
    outer: list[str] = []
    inner: list[str] = []
    with observe.listen(lambda weights, kind, name: outer.append(name)):
        with pytest.raises(RuntimeError):  # noqa: SIM117, PT012
            with observe.listen(lambda weights, kind, name: inner.append(name)):
                observe.report(WEIGHTS, name="both")
                raise RuntimeError
        observe.report(WEIGHTS, name="outer")
    assert (outer, inner) == (["both", "outer"], ["both"])
    assert observe._listeners == ()


def test_another_thread_is_not_heard() -> None:
    heard: list[str] = []
    with observe.listen(lambda weights, kind, name: heard.append(name)):
        thread = threading.Thread(target=lambda: observe.report(WEIGHTS, name="elsewhere"))
        thread.start()
        thread.join()
        observe.report(WEIGHTS, name="here")
    assert heard == ["here"]


def test_an_unknown_kind_is_refused() -> None:
    with observe.listen(lambda *said: None), pytest.raises(ValueError, match="given 'sideways'"):
        observe.report(WEIGHTS, kind="sideways")
