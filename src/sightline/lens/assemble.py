"""Puts the calls of a recording together: passes of the model, steps of a generation, windows of one attention."""

import math
import re
import warnings
from collections import Counter
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from sightline.lens.bundle import Kept
from sightline.lens.capture import Call
from sightline.lens.given import Mark, first_of
from sightline.lens.intercept import Interceptor
from sightline.lens.select import Choice, SiteInfo, resolve
from sightline.lens.site import Site

_NUMBER = re.compile(r"\d+")


def is_plain(mode: Interceptor) -> bool:
    """Whether the calls are those of one pass of the model, all kept alike, and in no windows.

    Nothing can be wrong then with any of them that would have to be told when the block ends.
    """
    marks = [entry for entry in mode.calls[:1] if isinstance(entry, Mark) and entry.kind == "pass"]
    if not marks or len(mode.calls) == 1 or isinstance(mode.plan.queries, int):
        return False
    kinds = {entry.bundle.kind if isinstance(entry, Kept) else None for entry in mode.calls[1:]}
    return all(kind is not None and kind.fields["batch"] <= (marks[0].batch or math.inf) for kind in kinds)


def single_calls(entries: list[Call | Kept | Mark]) -> list[Call | Mark]:
    """The entries of a recording, each call by itself."""
    waiting: list[Call] = next((e.waiting for e in entries if isinstance(e, Call) and e.waiting is not None), [])
    return [entry.call(waiting) if isinstance(entry, Kept) else entry for entry in entries]


def passes_of(calls: list[Call | Mark]) -> list[tuple[list[list[Call]], Mark]]:
    """Calls of each pass of the model, [calls of its first step, of its second …], and what the pass was given.

    A part that is called on its own (an encoder that `generate` runs first) belongs to the pass that follows; the same
    part called again begins another pass.
    """
    passes: list[tuple[list[list[Call]], list[Mark]]] = [([[]], [])]
    begun = False  # has this pass seen the model itself, or a step?
    for entry in calls:
        steps, marks = passes[-1]
        if isinstance(entry, Call):
            steps[-1].append(entry)
            continue
        if entry.kind == "step":
            steps.append([])
        elif begun or any(entry.path == mark.path for mark in marks):
            passes.append(([[]], []))
        begun = entry.kind != "part"
        passes[-1][1].append(entry)
    return [(steps, first_of(marks)) for steps, marks in passes if any(steps)]


def group_calls(steps: list[list[Call]]) -> list[tuple[list[Call], bool]]:
    """Calls that make one site: windows of one module call, or the same place in each step (then with True)."""
    sites: dict[tuple[str, int], list[Call]] = {}
    stepped: set[tuple[str, int]] = set()
    for calls in steps:
        times: Counter[str] = Counter()
        for call in calls:
            if call.past > 0 and times[call.path]:
                sites[call.path, times[call.path] - 1].append(call)
                continue
            place = (call.path, times[call.path])
            if place in sites:
                stepped.add(place)
            sites.setdefault(place, []).append(call)
            times[call.path] += 1
    return [(calls, place in stepped) for place, calls in sites.items()]


def choose_rows(calls: list[Call], choice: Choice, stepped: bool) -> None:
    """Keeps the rows asked for, of calls that kept all because they might have been windows."""
    batches = [[call] for call in calls] if stepped else [calls]
    for joined in batches:
        total, first = sum(call.queries for call in joined), joined[0]
        asked = choice
        if callable(asked):
            asked = asked(SiteInfo(first.path, first.batch, first.heads, total, sum(call.keys for call in joined)))
        found = resolve(asked, total)
        rows = list(range(total))[found] if isinstance(found, slice) else found
        start = 0
        for call in joined:
            call.keep_rows([row - start for row in rows if start <= row < start + call.queries])
            start += call.queries


def sites_of(recording: Any, steps: list[list[Call]], given: Mark) -> list[Site]:
    """The sites of one pass, in the order in which they ran."""
    sites = []
    for calls, stepped in group_calls(steps):
        sites.append(_site(recording, calls, stepped, given))
    number_sites(sites)
    return sites


def _site(recording: Any, calls: list[Call], stepped: bool, given: Mark) -> Site:
    first, choice = calls[0], recording.plan.queries
    windows, batch = None, given.batch
    if len(calls) == 1 and batch and first.batch > batch and first.batch % batch == 0:
        from sightline.lens.windows import find_windows

        try:
            windows = find_windows(recording.model, first.path, first.batch, first.queries, given.pixels, given.inputs)
        except ValueError as error:
            warnings.warn(f"{first.path} is kept window by window, not put in place: {error}", stacklevel=9)
    elif first.undecided and not batch and first.batch > 1 and not any("grid" in name for name in given.inputs):
        warnings.warn(
            f"{first.path} may attend in windows, and no image was seen to put them back on; record the model that "
            "is given the pixels",
            stacklevel=9,
        )
    if windows is None and first.undecided and choice is not None:
        choose_rows(calls, choice, stepped)
    return Site(calls, steps=stepped, recording=recording, given=given, windows=windows)


def check_rows(choice: Choice, sites: list[Site]) -> None:
    """Raises ValueError for a row asked for by number that a site does not have."""
    if isinstance(choice, Tensor):
        choice = choice.flatten().tolist()
    wanted = [choice] if isinstance(choice, int) else list(choice) if isinstance(choice, list | tuple | range) else []
    for site in sites:
        bad = [i for i in wanted if not -site.queries <= i < site.queries]
        if bad:
            raise ValueError(f"queries={bad[0]}: {site.name} has queries 0 to {site.queries - 1}")


def number_sites(sites: list[Site]) -> None:
    """Names sites whose module ran more than once, and counts layers within a family of paths."""
    times: Counter[str] = Counter()
    layers: Counter[str] = Counter()
    for site in sites:
        times[site.path] += 1
        if times[site.path] > 1:
            site.name = f"{site.path}#{times[site.path]}"
        family = _family(site.path)
        site.layer = layers[family]
        layers[family] += 1


@lru_cache(maxsize=4096)
def _family(path: str) -> str:
    return _NUMBER.sub("*", path)


def lost_calls(lost: list[str]) -> str:
    """What to say of calls that could not be read any more when they were looked at."""
    calls = "; ".join(sorted(set(lost)))
    return f"{calls} (record once more: from now on such calls of this model are looked at as they are made)"


def why_nothing(recording: Any, mode: Interceptor) -> str:
    """Why no attention was seen, and what to try: the text of the error."""
    name = type(recording.model).__name__
    if mode.skipped:
        return (
            f"no attention recorded: sites={recording.plan.sites!r} matches none of the {len(set(mode.skipped))} sites "
            f"that were seen, such as {', '.join(sorted(set(mode.skipped))[:3])}"
        )
    if recording.other_thread:
        return (
            f"no attention recorded: {name} ran in another thread than `with sightline.record(...)`, and torch shows "
            "calls to their own thread only; open the recording inside the thread that runs the model"
        )
    if any("torch.func" in what for what in recording.opaque):
        return (
            f"no attention recorded: {name} ran below torch.func (vmap, grad), whose tensors cannot be kept; record "
            "the model without it, with the batch as its first axis"
        )
    if any("_native_multi_head" in what or "_encoder_layer_fwd" in what for what in recording.opaque):
        return (
            f"no attention recorded: {'; '.join(recording.opaque)} hides its operands, which torch runs as one kernel "
            "where no hook of the module sees it; switch that off with torch.backends.mha.set_fastpath_enabled(False)"
        )
    if mode.lost:
        return f"no attention recorded: {'; '.join([lost_calls(mode.lost), *recording.opaque])}"
    if recording.opaque:
        return (
            f"no attention recorded: {'; '.join(recording.opaque)} hides its operands; load the model with "
            'attn_implementation="sdpa" (as fast, and visible)'
        )
    if mode.lowered:
        return (
            f"no attention recorded: {name} is compiled, and its written-out attention was fused by the compiler, "
            'which leaves nothing to see; load it with attn_implementation="sdpa", or record the plain model '
            "(model._orig_mod)"
        )
    if any(isinstance(m, torch.jit.ScriptModule) for m in recording.model.modules()):
        return (
            f"no attention recorded: {name} holds TorchScript, which hides its calls; record the Python model it "
            "was made from"
        )
    if mode.beside and mode.mark is None:
        others = ", ".join(sorted(set(mode.beside))[:3])
        return (
            f"no attention recorded: calls were seen in {others}, which is no part of this {name}; give record the "
            "module that is called (a copy is another module)"
        )
    if mode.mark is None:
        return (
            f"no attention recorded: {name} was not called inside the `with` block; put model(...) or "
            "model.generate(...) there, and give record the module that you call"
        )
    return (
        f"no attention recorded: {name} ran, but made no scaled_dot_product_attention or nn.MultiheadAttention "
        "call, and no softmax whose result multiplied values. If it computes attention in its own "
        "way, let it report with sightline.attention.observe.report(weights), or load it with "
        'attn_implementation="sdpa" or "eager"'
    )
