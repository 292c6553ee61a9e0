"""What was seen: a sequence of attention sites, and what can be made of them."""

import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, overload

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sightline.lens.capture import Call
from sightline.lens.intercept import Interceptor
from sightline.lens.select import Plan
from sightline.lens.site import Site


class Recording(Sequence[Site]):
    """The attention of one run of a model: `seen[-1].weights`, `seen.rollout()`, `seen.overlay(image)` …

    Filled when the `record` block ends.  Printing it shows the sites.
    """

    def __init__(self, model: nn.Module, plan: Plan, *, layout: Any = None) -> None:
        self.model = model
        self.plan = plan
        self.sites: list[Site] = []
        self.passes: list[list[Site]] = []
        self.inputs: dict[str, Any] = {}
        self.pixels: Tensor | None = None
        self.cached = False
        self.other_thread = False
        self.opaque: list[str] = []
        self._layout = layout
        self._filled = False
        self._gradients: tuple[Tensor, dict[int, Tensor]] | None = None

    # -- filling ---------------------------------------------------------------------------------------------------

    def note_inputs(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """Remembers what the model was given first: pixels (batch, 3, height, width) or video, and token ids."""
        if not self.inputs:
            self.inputs = {**{str(i): a for i, a in enumerate(args)}, **kwargs}
        if self.pixels is None:
            for value in (*kwargs.values(), *args):
                if isinstance(value, Tensor) and value.is_floating_point() and _is_picture(value):
                    self.pixels = value.detach()
                    return

    @property
    def batch(self) -> int | None:
        """Images in the batch that the model was given; None where it was given none."""
        return None if self.pixels is None else self.pixels.shape[0]

    def fill(self, mode: Interceptor) -> None:
        """Puts the calls together into sites.  Raises RuntimeError when there are none."""
        mode.add_traced()
        self._filled = True
        self.opaque = sorted(set(mode.opaque))
        passes = _passes(mode.calls)
        self.cached = any(steps for _, steps in passes)
        for calls_by_step, steps in passes:
            sites = [self._site(calls, steps) for calls in _group(calls_by_step)]
            self.passes.append(sites)
            self.sites += sites
        for sites in self.passes:
            _number(sites)
        for index, site in enumerate(self.sites):
            site.index = index
        mode.softmaxes.clear()
        if not self.sites:
            raise RuntimeError(self._nothing(mode))
        if self.opaque:
            warnings.warn(f"not recorded, because the kernel hides its operands: {'; '.join(self.opaque)}", stacklevel=4)
        self._check_rows()

    def _site(self, calls: list[Call], steps: bool) -> Site:
        from sightline.lens.windows import find_windows

        first = calls[0]
        windows = None
        if len(calls) == 1 and self.batch and first.batch > self.batch and first.batch % self.batch == 0:
            windows = find_windows(self.model, first.path, first.batch, first.queries, self.pixels, self.inputs)
        return Site(calls, steps=steps, recording=self, windows=windows)

    def _check_rows(self) -> None:
        choice = self.plan.queries
        if isinstance(choice, Tensor):
            choice = choice.flatten().tolist()
        wanted = [choice] if isinstance(choice, int) else list(choice) if isinstance(choice, list | tuple | range) else []
        for site in self.sites:
            bad = [i for i in wanted if not -site.queries <= i < site.queries]
            if bad and not site.stepped:
                raise ValueError(f"queries={bad[0]}: {site.name} has queries 0 to {site.queries - 1}")

    def _nothing(self, mode: Interceptor) -> str:
        name = type(self.model).__name__
        if mode.skipped:
            return (
                f"no attention recorded: sites={self.plan.sites!r} matches none of the {len(set(mode.skipped))} sites "
                f"that were seen, such as {', '.join(sorted(set(mode.skipped))[:3])}"
            )
        if self.other_thread:
            return (
                f"no attention recorded: {name} ran in another thread than `with sightline.record(...)`, and torch shows "
                "calls to their own thread only; open the recording inside the thread that runs the model"
            )
        if self.opaque:
            return (
                f"no attention recorded: {'; '.join(self.opaque)} hides its operands; load the model with "
                'attn_implementation="sdpa" (as fast, and visible)'
            )
        if mode.lowered:
            return (
                f"no attention recorded: {name} is compiled, and its written-out attention was fused by the compiler, which "
                'leaves nothing to see; load it with attn_implementation="sdpa", or record the plain model (model._orig_mod)'
            )
        if any(isinstance(m, torch.jit.ScriptModule) for m in self.model.modules()):
            return (
                f"no attention recorded: {name} holds TorchScript, which hides its calls; record the Python model it "
                "was made from"
            )
        if not self.inputs:
            return (
                f"no attention recorded: {name} was not called inside the `with` block; put model(...) or "
                "model.generate(...) there, and give record the module that you call"
            )
        return (
            f"no attention recorded: {name} ran, but made no scaled_dot_product_attention, nn.MultiheadAttention or "
            "flex_attention call, and no softmax whose result multiplied values. If it computes attention in its own "
            "way, let it report with sightline.attention.observe.report(weights), or load it with "
            'attn_implementation="sdpa" or "eager"'
        )

    # -- as a sequence -----------------------------------------------------------------------------------------------

    @overload
    def __getitem__(self, index: int) -> Site: ...
    @overload
    def __getitem__(self, index: slice) -> list[Site]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if not self._filled:
            raise RuntimeError("the recording is filled when the `with sightline.record(...)` block ends; read it after")
        return self.sites[index]

    def __len__(self) -> int:
        return len(self.sites)

    def __iter__(self) -> Iterator[Site]:
        return iter(self.sites)

    def __bool__(self) -> bool:
        return True

    def site(self, name: str) -> Site:
        """The site of that name or module path.  Raises KeyError naming those that exist."""
        for site in self.sites:
            if name in (site.name, site.path):
                return site
        raise KeyError(f"no site {name!r}; there are {', '.join(s.name for s in self.sites)}")

    @property
    def bytes(self) -> int:
        """Bytes that the recording keeps."""
        return sum(site.bytes for site in self.sites)

    def __str__(self) -> str:
        from sightline.lens.survey import readable

        if not self._filled:
            return f"Recording of {type(self.model).__name__}: open"
        head = f"{'':>4} {'site':56} layer kind  source  heads   queries x keys    rows      kept"
        lines = [
            f"{s.index:4} {s.name[-56:]:56} {s.layer:5} {s.kind:5} {s.source:7} {s.heads:5} {s.queries:9} x {s.keys:<6} "
            f"{s.rows:6} {readable(s.bytes):>9}"
            for s in self.sites
        ]
        return "\n".join([f"{type(self.model).__name__}: {len(self)} attention sites, {readable(self.bytes)}", head, *lines])

    __repr__ = __str__

    # -- gradients ---------------------------------------------------------------------------------------------------

    def gradient(self, site: Site, score: Float[Tensor, ""]) -> Tensor:
        """d score / d output of one site's attention call; one backward pass serves all sites of the recording."""
        if not self.plan.gradients:
            raise ValueError("gradient-weighted maps need record(model, gradients=True)")
        if self._gradients is None or self._gradients[0] is not score:
            self._gradients = (score, self._all_gradients(score))
        found = self._gradients[1].get(site.index)
        if found is None:
            raise ValueError(
                f"{site.name}: the score does not depend on what this site computed. Was it recorded under no_grad, inside "
                "torch.compile (record model._orig_mod), or under re-entrant checkpointing (use_reentrant=False)?"
            )
        return found

    def _all_gradients(self, score: Tensor) -> dict[int, Tensor]:
        if score.numel() != 1 or not score.requires_grad:
            raise ValueError(
                f"score is one number computed by the model with gradients on, such as logits[0, 3]; got shape "
                f"{tuple(score.shape)}, requires_grad={score.requires_grad}"
            )
        outputs = {
            s.index: call.output
            for s in self.sites
            for call in s.calls[:1]
            if call.output is not None and call.output.requires_grad
        }
        if not outputs:
            return {}
        found = torch.autograd.grad(score, list(outputs.values()), retain_graph=True, allow_unused=True)
        return {index: g for index, g in zip(outputs, found, strict=True) if g is not None}

    def layout(self, site: Site) -> Any:
        """How a site's keys lie on the image: the layout given to `record`, or found by looking at the model."""
        from sightline.lens.place import infer_layout

        if self._layout is not None:
            return self._layout
        if self.pixels is None:
            raise ValueError(
                f"{type(self.model).__name__} was given no image (no floating tensor of 3 channels), so its tokens have "
                "no place on one; give record(..., layout=sightline.lens.Layout(height, width, prefix)) if they have"
            )
        return infer_layout(self.model, site.keys, self.pixels, path=site.path, inputs=self.inputs)


def _is_picture(value: Tensor) -> bool:
    """(batch, 3, height, width), or video (batch, frames, 3, height, width) / (batch, 3, frames, height, width)."""
    return (value.dim() == 4 and value.shape[1] == 3) or (value.dim() == 5 and 3 in (value.shape[1], value.shape[2]))


def _passes(calls: list[Call | str]) -> list[tuple[list[list[Call]], bool]]:
    """Calls of each pass of the model: ([calls of its first step, of its second …], is it step by step?).

    Calls before the first mark (an encoder that `generate` runs first) belong to the first pass.
    """
    passes: list[list[list[Call]]] = [[[]]]
    marked = False
    for entry in calls:
        if isinstance(entry, Call):
            passes[-1][-1].append(entry)
        elif not marked:
            marked = True
        elif entry == "step":
            passes[-1].append([])
        else:
            passes.append([[]])
    return [(steps, len(steps) > 1) for steps in passes if any(steps)]


def _group(steps: list[list[Call]]) -> list[list[Call]]:
    """Calls that make one site: windows of one module call, and the same place in each step."""
    sites: dict[tuple[str, int], list[Call]] = {}
    for calls in steps:
        times: Counter[str] = Counter()
        for call in calls:
            if call.past > 0 and times[call.path]:
                sites[call.path, times[call.path] - 1].append(call)
            else:
                sites.setdefault((call.path, times[call.path]), []).append(call)
                times[call.path] += 1
    return list(sites.values())


def _number(sites: list[Site]) -> None:
    """Names sites whose module ran more than once, and counts layers within a family of paths."""
    times: Counter[str] = Counter()
    layers: Counter[str] = Counter()
    for site in sites:
        times[site.path] += 1
        if times[site.path] > 1:
            site.name = f"{site.path}#{times[site.path]}"
        family = re.sub(r"\d+", "*", site.path)
        site.layer = layers[family]
        layers[family] += 1
