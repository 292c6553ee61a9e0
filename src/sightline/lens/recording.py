"""What was seen: a sequence of attention sites, and what can be made of them."""

import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, overload

import torch
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor, nn

from sightline.lens.assemble import check_rows, is_plain, lost_calls, passes_of, single_calls, sites_of, why_nothing
from sightline.lens.bundle import Kept
from sightline.lens.capture import Call
from sightline.lens.given import Mark
from sightline.lens.intercept import Interceptor
from sightline.lens.select import Plan, Row
from sightline.lens.site import Site

_reading = threading.RLock()


def counted(sites: Sequence[Site]) -> str:
    """1 attention site, 2 attention sites, …"""
    return f"{len(sites)} attention site{'' if len(sites) == 1 else 's'}"


class Recording(Sequence[Site]):
    """The attention of one run of a model: `seen[-1].weights`, `seen.rollout()`, `seen.overlay(image)` …

    Filled when the `record` block ends.  Printing it shows the sites.
    """

    def __init__(self, model: nn.Module, plan: Plan, *, layout: Any = None) -> None:
        self.model = model
        self.plan = plan
        self._sites: list[Site] = []
        self._passes: list[list[Site]] = []
        self._calls: list[Call | Kept | Mark] | None = None  # that sites have not been made of yet
        self.given: list[Mark] = []  # of each pass
        self.cached = False
        self.other_thread = False
        self.opaque: list[str] = []
        self.checked: dict[int, Any] = {}  # checks made, by image of the batch
        self._layout = layout
        self._filled = False
        self._gradients: tuple[Tensor, dict[int, Tensor]] | None = None

    @property
    def sites(self) -> list[Site]:
        """All sites, in the order in which they ran."""
        self._put_together()
        return self._sites

    @property
    def passes(self) -> list[list[Site]]:
        """The sites of each pass of the model."""
        return self._put_together()

    # -- filling ---------------------------------------------------------------------------------------------------

    @property
    def pixels(self) -> Tensor | None:
        """The picture or video that the first pass was given; None where there was none."""
        return self.given[0].pixels if self.given else None

    @property
    def batch(self) -> int | None:
        """Images in the batch that the first pass was given; None where it was given none."""
        return self.given[0].batch if self.given else None

    @property
    def inputs(self) -> dict[str, Any]:
        """What the first pass was given, by name or position."""
        return self.given[0].inputs if self.given else {}

    def forget(self) -> None:
        """Lets go of what the model was given; tokens can no longer be placed on the image then."""
        sites = self.sites  # which are told by what the model was given
        self.given = [Mark("pass") for _ in self.given]
        for site in sites:
            site.given = Mark("pass")

    def fill(self, mode: Interceptor) -> None:
        """Puts the calls together into sites.  Raises RuntimeError when there are none."""
        mode.finish()
        self._filled = True
        self.other_thread = mode.other_thread
        self.opaque = sorted(set(mode.opaque))
        self._calls = mode.calls
        plain = is_plain(mode)
        if plain:  # then sites are put together when somebody reads them
            self.given = [mark for mark in mode.calls if isinstance(mark, Mark)]
        elif not self.sites:
            raise RuntimeError(why_nothing(self, mode))
        if mode.lost:
            warnings.warn(f"not recorded: {lost_calls(mode.lost)}", stacklevel=5)
        if self.opaque:
            hidden = "; ".join(self.opaque)
            warnings.warn(f"not recorded, because the kernel hides its operands: {hidden}", stacklevel=5)
        if self.other_thread:
            warnings.warn("calls of this model from other threads were not recorded", stacklevel=5)
        if mode.caches.reordered:
            warnings.warn(
                "beam search moved hypotheses between the rows of the batch: the rows of a step belong to the "
                "hypotheses that were there then; record generate(num_beams=1), or the finished sentence in one pass",
                stacklevel=5,
            )
        if not plain:
            check_rows(self.plan.queries, self.sites)

    def _put_together(self) -> list[list[Site]]:
        """The sites of each pass, made of the calls once; two threads may read."""
        with _reading:
            if self._calls is not None:
                passes = passes_of(single_calls(self._calls))
                self.cached = any(len(steps) > 1 for steps, _ in passes)
                self.given = [given for _, given in passes]
                self._passes = []
                for steps, given in passes:
                    self._passes.append(sites_of(self, steps, given))
                self._sites = [site for sites in self._passes for site in sites]
                for index, site in enumerate(self._sites):
                    site.index = index
                self._calls = None
        return self._passes

    # -- as a sequence -----------------------------------------------------------------------------------------------

    @overload
    def __getitem__(self, index: int | str) -> Site: ...
    @overload
    def __getitem__(self, index: slice) -> list[Site]: ...
    def __getitem__(self, index: int | str | slice) -> Any:
        if not self._filled:
            raise RuntimeError(
                "the recording is filled when the `with sightline.record(...)` block ends; read it after"
            )
        if isinstance(index, str):
            return self.site(index)
        try:
            return self.sites[index]
        except IndexError:
            raise IndexError(f"no site {index}: the recording has {counted(self.sites)}, from 0 on") from None

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
        kept = {id(t): t for site in self.sites for call in site.calls for t in call.tensors()}
        return sum(t.numel() * t.element_size() for t in kept.values())

    def __str__(self) -> str:
        from sightline.lens.survey import readable

        if not self._filled:
            return f"Recording of {type(self.model).__name__}: open"
        head = f"{'':>4} {'site':56} layer kind  source  heads   queries x keys    rows      kept"
        lines = [
            f"{s.index:4} {s.name[-56:]:56} {s.layer:5} {s.kind:5} {s.source:7} {s.heads:5} {s.queries:9} x "
            f"{s.keys:<6} {s.rows:6} {readable(s.bytes):>9}"
            for s in self.sites
        ]
        return "\n".join(
            [
                f"{type(self.model).__name__}: {counted(self)}, {readable(self.bytes)}",
                head,
                *lines,
            ]
        )

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
                f"{site.name}: the score does not depend on what this site computed. Was it recorded under no_grad, "
                "inside torch.compile (record model._orig_mod), or under re-entrant checkpointing (take "
                "use_reentrant=False)?"
            )
        return found

    def _all_gradients(self, score: Tensor) -> dict[int, Tensor]:
        if score.numel() != 1 or not score.requires_grad:
            raise ValueError(
                "score is one number computed by the model with gradients on (no no_grad, no inference_mode around "
                f"it), such as logits[0, 3]; got shape {tuple(score.shape)}, requires_grad={score.requires_grad}"
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

        if site.windows is not None:
            return site.windows.layout
        return infer_layout(
            self.model, site.keys, site.given.pixels, path=site.path, inputs=site.given.inputs, layout=self._layout
        )

    # -- what can be made of it ----------------------------------------------------------------------------------------

    def heat(self, **choices: Any) -> Float[Tensor, "height width"]:
        """One map on the image's token grid: `method`, `layer`, `head`, `query`, `item`, `score` (see `lens.heat`)."""
        from sightline.lens.heat import heat

        return heat(self, **choices)

    def rollout(self, sites: Sequence[Site] | None = None, **choices: Any) -> Tensor:
        """Attention rollout over the self-attention sites, (batch, rows, tokens); see `lens.rollout.rollout`.

        `rows=sightline.CLS` gives the class token's row alone and holds no N x N matrix; None gives all N x N.
        """
        from sightline.lens.rollout import rollout

        if isinstance(choices.get("rows"), Row):
            choices["rows"] = choices["rows"].position
        return rollout(self._chain() if sites is None else sites, **choices)

    def grad_weighted(self, score: Tensor, layer: int = -1) -> Tensor:
        """Gradient-weighted attention of one site, (batch, rows, keys); see `lens.gradients.grad_weighted`."""
        from sightline.lens.gradients import grad_weighted

        return grad_weighted(self[layer], score)

    def grad_rollout(self, score: Tensor, sites: Sequence[Site] | None = None, **choices: Any) -> Tensor:
        """Gradient rollout over the self-attention sites, (batch, rows, tokens); see `lens.gradients.grad_rollout`."""
        from sightline.lens.gradients import grad_rollout

        return grad_rollout(self._chain() if sites is None else sites, score, **choices)

    def cross_rollout(self, **choices: Any) -> Any:
        """Rollout through an encoder-decoder: `.encoder`, `.decoder`, `.cross`; see `lens.rollout.cross_rollout`."""
        from sightline.lens.rollout import cross_rollout

        encoder, decoder, cross = self.encoder_decoder()
        return cross_rollout(encoder, decoder, cross, **choices)

    def encoder_decoder(self) -> tuple[list[Site], list[Site], list[Site]]:
        """Encoder self-attention, decoder self-attention and cross-attention sites, told apart by their lengths.

        Raises ValueError where the model has no cross-attention.
        """
        sites = self.only_pass()
        cross = [s for s in sites if s.kind == "cross"]
        if not cross:
            raise ValueError(f"{type(self.model).__name__} made no cross-attention in this recording")
        # "decoder.layers." of "decoder.layers.0.encoder_attn": what comes before the number of the layer
        stem = re.split(r"\.\d+(?:\.|$)", cross[0].path)[0] + "."
        decoder = [s for s in sites if s.kind != "cross" and s.path.startswith(stem)]
        encoder = [s for s in sites if s.kind != "cross" and not s.path.startswith(stem)]
        return encoder, decoder, cross

    def only_pass(self) -> list[Site]:
        """The sites, when the model ran once; ValueError when it ran more often and a choice is needed."""
        if len(self.passes) > 1:
            raise ValueError(
                f"the model ran {len(self.passes)} times in this recording; choose one with seen.passes[0] (a list of "
                "sites), or record each run by itself"
            )
        return self.sites

    def _chain(self) -> list[Site]:
        return [s for s in self.only_pass() if s.kind != "cross"]

    def overlay(self, image: Any = None, *, item: int = 0, title: str = "", caption: str = "", **choices: Any) -> Image:
        """The map of `heat(...)` laid on the photograph, with a colour bar; a PIL image (`.save("look.png")`)."""
        from sightline.lens import view

        heat = self.heat(item=item, **choices)
        return view.overlay(self._picture(image, item), heat, title=title, caption=caption)

    def montage(self, image: Any = None, *, item: int = 0, title: str = "", **choices: Any) -> Image:
        """Layers x heads as small multiples: each site on the image, each head."""
        from sightline.lens import view
        from sightline.lens.heat import class_maps, image_sites

        found = [(p, class_maps(p, item)) for p in image_sites(self)]
        shown = [(p, maps[0]) for p, maps in found if maps is not None]
        if not shown:
            raise ValueError("no site kept the row of its class token; record with queries=sightline.CLS or None")
        most = max(len(maps) for _, maps in shown)
        return view.montage(
            self._picture(image, item), [list(maps) for _, maps in shown],
            rows=[f"layer {number}" for number, _ in enumerate(shown)],
            columns=[f"head {h}" for h in range(most)], title=title, **choices,
        )  # fmt: skip

    def to_html(self, path: Any, image: Any = None, **choices: Any) -> Any:
        """One self-contained page with layer, head, method and threshold controls; returns its path (`lens.report`)."""
        from sightline.lens.report import write_report

        return write_report(self, path, self._picture(image, choices.get("item", 0)), **choices)

    def check(
        self,
        model: Any = None,
        image: Any = None,
        *,
        heat: Tensor | None = None,
        item: int = 0,
        **choices: Any,
    ) -> Any:
        """Does masking what it looked at change the answer?  Runs `model` again on masked input (`lens.verdict.check`).

        `image` may be the input tensor (batch, 3, height, width).  Without one, or with a PIL image (which cannot be
        prepared as the model needs it), the pixels that were recorded are masked.
        `item` is the image of the batch, `heat` another map than `heat(item=item)`.
        """
        from sightline.lens.verdict import check

        self.only_pass()
        if model is not None and not callable(model):
            raise TypeError(f"check(model, image) takes the model first, or image=…; given a {type(model).__name__}")
        if image is not None and not isinstance(image, Tensor | Image):
            raise TypeError(f"image is the model's input tensor or a PIL image, not {type(image).__name__}")
        pixels = image if isinstance(image, Tensor) else self.pixels
        if pixels is None or pixels.dim() != 4:
            shape = "no image" if pixels is None else f"a video of shape {tuple(pixels.shape)}"
            raise ValueError(
                f"the check masks an image (batch, 3, height, width), the recording holds {shape}; give "
                "check(model, pixels), or call lens.verdict.check with a model of frames"
            )
        heat = self.heat(item=item) if heat is None else heat
        pixels = pixels[item : item + 1] if len(pixels) > 1 else pixels
        self.checked[item] = check(model if model is not None else self.model, pixels, heat, **choices)
        return self.checked[item]

    def _picture(self, image: Any, item: int) -> Any:
        from sightline.lens.heat import picture_of

        if image is not None:
            return image
        if self.pixels is None:
            raise ValueError("the model was given no image; pass the picture to draw on")
        return picture_of(self.pixels[item : item + 1])

    def _repr_html_(self) -> str:
        from sightline.lens.page import to_notebook_html

        header = ["site", "kind", "heads", "queries x keys", "rows kept"]
        rows = [[s.name, s.kind, s.heads, f"{s.queries} x {s.keys}", s.rows] for s in self.sites]
        try:
            picture = self.overlay()
        except ValueError:
            picture = None  # text, or no row that lies on an image: the table alone
        return to_notebook_html(
            picture,
            header,
            rows,
            heading=f"{type(self.model).__name__}: {counted(self)}",
        )
