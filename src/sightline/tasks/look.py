"""Where does a model look in a photograph?  Image in; map, overlay and page out."""

import base64
import io
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from sightline.data.photographs import open_photograph
from sightline.lens.given import evaluating
from sightline.lens.sheet import spoken
from sightline.systems.ps_vit import PSViT
from sightline.tasks.methods import GRADIENT_METHODS, MASS, check_choice, usual_model
from sightline.tasks.vision_model import Prepare, VisionModel, open_vision_model

MOST_ROWS = 1025  # tokens of a picture up to which "threshold" keeps every row, for the page


@dataclass(frozen=True)
class Look:
    """Where one model looked in one photograph.

    ``heat`` (h, w) is the map on the token grid, non-negative; ``image`` the part of the photograph that the
    model was shown; ``labels`` its best classes with probabilities, best first (None where it does not
    classify); ``check`` what masking the map did to the answer (None unless asked for); ``recording``
    everything that was recorded; ``masks`` (heads, h, w) the cells that hold ``mass`` of each head's attention
    (None for methods other than "threshold"); ``layer``, ``head`` and ``query`` are those that were asked for.
    """

    heat: Tensor
    image: Image.Image
    overlay: Image.Image
    recording: Any
    model: str
    method: str
    labels: tuple[tuple[str, float], ...] | None = None
    check: Any = None
    note: str = ""
    title: str = "photograph"
    command: str = ""
    score: Tensor | None = None
    masks: Tensor | None = None
    mass: int | float = MASS
    layer: int = -1
    head: str | int = "mean"
    query: Any = None

    @property
    def part(self) -> str:
        """The layer and the head that were chosen, in words; "" for the last layer and the mean of its heads."""
        return part_of(self.layer, self.head)

    @property
    def asked(self) -> str:
        """The same, and the query whose row it is, where one was chosen."""
        place = self.query if isinstance(self.query, tuple) else (self.query,)
        query = "" if self.query is None else f"query {','.join(map(str, place))}"
        return ", ".join(filter(None, (self.part, query)))

    @property
    def sentence(self) -> str:
        """One honest sentence: how concentrated the map is and where, beside the even map; then the
        answer."""
        heads = "" if self.masks is None else " " + describe_masks(self.masks, self.mass)
        return describe(self.heat) + heads + (f" Answer: {_spoken(self.labels)}." if self.labels else "")

    @property
    def summary(self) -> dict[str, Any]:
        """The result as plain values for machines."""
        share, even = concentration(self.heat)
        row, column = peak(self.heat)
        height, width = self.heat.shape
        return {
            "model": self.model,
            "method": self.method,
            "grid": [height, width],
            "top_share": round(share, 4),
            "top_area": round(even, 4),
            "peak": {"x": round((column + 0.5) / width, 4), "y": round((row + 0.5) / height, 4)},
            "labels": None if self.labels is None else [{"label": n, "probability": p} for n, p in self.labels],
            "check": None if self.check is None else _check_values(self.check),
            "masks": None if self.masks is None else _mask_values(self.masks, self.mass),
            "note": self.note or None,
            "sentence": self.sentence,
        }

    def show(self) -> None:
        """Show the overlay in the notebook, or in the desktop's picture viewer."""
        try:
            from IPython import get_ipython
            from IPython.display import display
        except ImportError:
            self.overlay.show()
            return
        if get_ipython() is None:
            self.overlay.show()
        else:
            display(self)

    def save(self, path: str | Path) -> Path:
        """Write a picture (.png, .jpg, .webp) or a self-contained page (.html); other suffixes raise
        ValueError."""
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix not in (".png", ".jpg", ".jpeg", ".webp", ".html", ".htm"):
            raise ValueError(
                f"{path}: a look is saved as .png, .jpg, .webp or .html, not {suffix or 'without a suffix'}"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        if suffix in (".html", ".htm"):
            notes = [describe(self.heat), *([self.note] if self.note else [])]
            drawn = [] if self.masks is None else [(describe_masks(self.masks, self.mass), self.overlay)]
            self.recording.to_html(
                path, image=self.image, title=f"{self.title} · {self.model}", command=self.command,
                score=self.score, answers=self.labels or (), notes=notes, pictures=drawn,
                shown=(", ".join(filter(None, (self.method, self.asked, "as in the picture"))), self.heat),
                chosen=(self.layer, self.head) if self.part else None,
            )  # fmt: skip
        else:
            self.overlay.save(path)
        return path

    def _repr_html_(self) -> str:
        """Shown by notebooks: the overlay, embedded, and the sentence."""
        from html import escape

        held = io.BytesIO()
        self.overlay.save(held, "PNG")
        data = base64.b64encode(held.getvalue()).decode()
        return (
            f'<figure style="margin:0"><img style="max-width:100%" alt="{escape(self.sentence)}" '
            f'src="data:image/png;base64,{data}"><figcaption>{escape(self.sentence)}</figcaption></figure>'
        )

    def __repr__(self) -> str:
        return f"Look({self.title}, {self.model}, {self.method}: {self.sentence})"


def look(
    image: Any,
    *,
    model: Any = None,
    method: str = "auto",
    layer: int = -1,
    head: str | int = "mean",
    query: Any = None,
    mass: int | float = MASS,
    size: int | None = None,
    check: bool = False,
    limit: int = 2**30,
    prepare: Prepare | None = None,
    command: str = "",
) -> Look:
    """Run a model on one photograph and tell where its attention went.

    ``image`` is anything ``open_photograph`` takes.  ``model`` is a bundled name (default "dino" where it is
    bundled, else "vit"), a folder, a weights file, a hub id, an ``nn.Module`` or a ``VisionModel``.
    ``method``: "raw" (the rows of one layer),
    "rollout" (Abnar & Zuidema), "gradient" (weighted by the gradient of the best class), "grad_rollout"
    (Chefer et al.), "threshold" (DINO: the fewest cells that hold ``mass`` of each head's attention in one
    layer), or "auto" (threshold for a Vision Transformer that gives features, as DINO; rollout where the query
    is the class token).  ``layer``, ``head`` and ``query`` choose what is shown; ``size`` is the shorter side, in
    pixels, at which a model that takes any size sees the whole picture; ``check`` masks what was looked at and
    measures what that does to the answer (to the features, where there is none); ``limit`` bounds the bytes kept.

    A PS-ViT gives a ``PointsLook`` (`tasks/points.py`), which draws its points moving.
    Raises ``PhotographError``, ``ModelError`` or ``ValueError`` in one line for anything that cannot be done.
    """
    check_choice(method, mass)
    opened = at_size(open_vision_model(model or usual_model(), prepare), size)
    pixels, seen_image = opened.prepare(open_photograph(image))
    pixels = like_parameters(pixels, opened.model)
    title = Path(image).name if isinstance(image, str | Path) else "photograph"
    if isinstance(opened.model, PSViT):
        from sightline.tasks.points import look_at_points

        with evaluating(opened.model):
            return look_at_points(
                opened, pixels, seen_image, method=method, layer=layer, head=head, query=query, limit=limit,
                title=title, command=command, check=check,
            )  # fmt: skip
    masks = None
    with evaluating(opened.model):
        # a model that names classes gets gradient maps on its page too, where they can be had
        wants_gradient = method in GRADIENT_METHODS or opened.names is not None
        method = "threshold" if method == "auto" and opened.features and query in (None, "class") else method
        with torch.set_grad_enabled(wants_gradient):
            seen, logits = _run(opened, pixels, wants_gradient, limit, method, layer, query)
            check_token(seen, layer, query)
            method = _resolved(method, seen, query, layer, head)
            score = _score(logits, opened.name, method)
            read = "raw" if method == "threshold" else method
            heat = seen.heat(method=read, layer=layer, head=head, query=query, score=score).detach()
            if method == "threshold":
                masks = head_masks(seen, layer, query, mass)
            if method not in GRADIENT_METHODS and not _has_gradients(seen, score):
                score = None
        if check:
            # kept in the recording, so that its page shows it too
            asked = "similarity" if opened.features else None
            checked = seen.check(opened.model, pixels, heat=heat, score=asked)
            seen.checked[0] = _name_the_class(checked, logits, opened.names)
    heat = heat.float().cpu()
    made = Look(
        heat=heat, image=seen_image, overlay=seen_image, recording=seen, model=opened.name, method=method,
        labels=best_labels(logits, opened.names), check=seen.checked.get(0), note=opened.note, title=title,
        command=command, score=score, masks=masks, mass=mass, layer=layer, head=head, query=query,
    )  # fmt: skip
    return replace(made, overlay=_drawn(made))


def at_size(opened: VisionModel, size: int | None) -> VisionModel:
    """The model with the preparation that shows whole pictures at a size; ValueError where it takes only one."""
    if size is None:
        return opened
    if opened.resized is None:
        raise ValueError(f"size {size}: {opened.name} is shown pictures by its own preparation; leave size out")
    return replace(opened, prepare=opened.resized(size))


def head_masks(seen: Any, layer: int, query: Any, mass: int | float) -> Tensor:
    """The fewest cells that hold `mass` of each head's attention in one layer, (heads, h, w) booleans."""
    from sightline.lens.heat import image_sites
    from sightline.lens.regions import highest

    placed = image_sites(seen)[layer]
    heads = [seen.heat(method="raw", layer=layer, head=number, query=query) for number in range(placed.site.heads)]
    return highest(torch.stack(heads).float().cpu(), mass=mass)


def part_of(layer: int, head: str | int) -> str:
    """A layer and a head in words; "" for the last layer and the mean of its heads."""
    chosen = (f"layer {layer}" if layer != -1 else "", "" if head == "mean" else f"head {head}")
    return ", ".join(filter(None, chosen))


def _drawn(made: Look) -> Image.Image:
    from sightline.lens import view

    title = " · ".join(filter(None, (made.title, made.model, made.method, made.asked)))
    note = f"The check: {made.check.verdict}." if made.check else "sightline look --check measures its effect."
    if made.masks is None:
        return view.overlay(made.image, made.heat, title=title, caption=describe(made.heat), note=note)
    words = [f"head {number} · {float(mask.float().mean()):.0%}" for number, mask in enumerate(made.masks)]
    return view.masks(made.image, made.masks, made.heat, labels=words, title=title, caption=made.sentence, note=note)


def _run(
    opened: VisionModel, pixels: Tensor, gradients: bool, limit: int, method: str, layer: int, query: Any
) -> tuple[Any, Tensor | None]:
    from sightline.lens import record
    from sightline.lens.heat import image_sites, resolve_query

    def run(rows: Any) -> tuple[Any, Any]:
        def few(site: Any) -> Any:  # a large picture's rows are many, and "threshold" reads one of them
            return slice(None) if site.queries <= MOST_ROWS else rows

        given = pixels.clone().requires_grad_(gradients)
        queries = few if method == "threshold" else None
        with record(opened.model, gradients=gradients, limit=limit, queries=queries) as seen:
            output = opened.model(given)
        return seen, output

    seen, output = run(0)
    if method == "threshold":
        sites = image_sites(seen)
        placed = sites[layer] if -len(sites) <= layer < len(sites) else sites[-1]
        token = resolve_query(placed, query)  # which row a patch has is known only now; None asks for all
        if placed.site.rows < placed.site.queries and (token is None or 0 < token < placed.site.queries):
            seen, output = run(slice(None) if token is None else token)
    return seen, None if opened.features else answer(output)


def check_token(seen: Any, layer: int, query: Any) -> None:
    """Raises ValueError for a token that there is not: only now it is known how many there are."""
    from sightline.lens.heat import image_sites

    sites = image_sites(seen)
    if isinstance(query, int) and -len(sites) <= layer < len(sites):
        count = sites[layer].site.queries
        if not -count <= query < count:
            raise ValueError(f"query {query}: the picture has {count} tokens, 0 to {count - 1}")


def _resolved(method: str, seen: Any, query: Any, layer: int, head: str | int) -> str:
    from sightline.lens.heat import automatic, image_sites

    return automatic(image_sites(seen), query, layer, head) if method == "auto" else method


def answer(output: Any) -> Tensor | None:
    """The class scores (batch, classes) in whatever a model returned, or None where there are none."""
    logits = getattr(output, "logits", None)
    if logits is None and isinstance(output, dict):
        logits = output.get("logits")
    if logits is None and isinstance(output, Tensor):
        logits = output
    return logits if isinstance(logits, Tensor) and logits.ndim == 2 else None


def best_labels(
    logits: Tensor | None, names: tuple[str, ...] | None, top: int = 5
) -> tuple[tuple[str, float], ...] | None:
    """The likeliest classes of the first item with softmax probabilities; None unless every score has a
    name."""
    if logits is None or names is None or logits.shape[-1] != len(names):
        return None
    chances = logits[0].detach().float().softmax(-1)
    values, places = chances.topk(min(top, len(names)))
    return tuple((names[place], round(value, 6)) for place, value in zip(places.tolist(), values.tolist(), strict=True))


def concentration(heat: Tensor) -> tuple[float, float]:
    """Share of the map's mass that its brightest tenth of cells holds, and the share that an even map would
    hold."""
    values = heat.flatten().clamp(min=0).double()
    count = max(1, math.ceil(values.numel() / 10))
    total = values.sum()
    even = count / values.numel()
    return (float(values.topk(count).values.sum() / total) if total > 0 else even), even


def peak(heat: Tensor) -> tuple[int, int]:
    """Row and column of the brightest cell."""
    return divmod(int(heat.flatten().argmax()), heat.shape[1])


def describe(heat: Tensor) -> str:
    """How concentrated a map is and where, in a sentence that claims no more than that."""
    share, even = concentration(heat)
    row, column = peak(heat)
    where = _region((row + 0.5) / heat.shape[0], (column + 0.5) / heat.shape[1])
    if share < 1.5 * even:
        return f"Attention is spread almost evenly: its top {even:.0%} of cells holds {share:.0%} of it."
    return f"Attention is strongest {where}. The most looked-at {even:.0%} of the picture holds {share:.0%} of it."


def describe_masks(masks: Tensor, mass: int | float) -> str:
    """How much of the picture the masks of the heads cover, in a sentence."""
    shares = masks.float().mean((1, 2))
    least, most = float(shares.min()), float(shares.max())
    span = f"{least:.0%}" if least == most else f"{least:.0%} to {most:.0%}"
    return f"{mass:.0%} of each head's attention lies on {span} of the picture, over {len(masks)} heads."


def _mask_values(masks: Tensor, mass: int | float) -> dict[str, Any]:
    return {"mass": mass, "areas": [round(float(mask.float().mean()), 4) for mask in masks]}


def _region(down: float, across: float) -> str:
    vertical = "upper" if down < 1 / 3 else "lower" if down > 2 / 3 else ""
    horizontal = "left" if across < 1 / 3 else "right" if across > 2 / 3 else ""
    if not vertical and not horizontal:
        return "in the middle"
    if vertical and horizontal:
        return f"at the {vertical} {horizontal}"
    return f"at the {horizontal}" if horizontal else {"upper": "at the top", "lower": "at the bottom"}[vertical]


def _spoken(labels: tuple[tuple[str, float], ...] | None) -> str:
    return ", ".join(f"{spoken(name)} {chance:.0%}" for name, chance in (labels or ())[:3])


def _score(logits: Tensor | None, name: str, method: str) -> Tensor | None:
    if logits is None and method in GRADIENT_METHODS:
        raise ValueError(
            f"method {method!r} needs class scores and {name!r} gives none; use raw or rollout, or a model "
            "that classifies, such as --model vit"
        )
    return logits[0].max() if logits is not None and logits.requires_grad else None


def _has_gradients(seen: Any, score: Tensor | None) -> bool:
    if score is None:
        return False
    try:
        seen.heat(method="gradient", score=score)
    except ValueError:  # compiled or windowed attention: the page goes without these maps
        return False
    return True


def like_parameters(pixels: Tensor, model: torch.nn.Module) -> Tensor:
    """The pixels on the device and in the precision of the model's parameters."""
    first = next(model.parameters(), None)
    return pixels if first is None else pixels.to(device=first.device, dtype=first.dtype)


def _name_the_class(checked: Any, logits: Tensor | None, names: tuple[str, ...] | None) -> Any:
    """The same check, with the class that it measured called by its name."""
    labels = best_labels(logits, names, 1)
    if labels is None:
        return checked
    measure = f"probability of {spoken(labels[0][0])}"
    return replace(
        checked,
        effect=replace(checked.effect, measure=measure),
        curves=replace(checked.curves, measure=measure),
    )


def _check_values(checked: Any) -> dict[str, Any]:
    """The figures of a check for machines, each beside its random and its centre control."""
    effect = ("area", "whole", "without", "random_without", "centre_without", "only", "random_only", "centre_only")
    curves = [f"{prefix}{name}" for name in ("deletion", "insertion") for prefix in ("", "random_", "centre_")]
    return {
        "summary": checked.summary(),
        "verdict": checked.verdict,
        "measure": checked.effect.measure,
        "effect": {name: round(float(getattr(checked.effect, name).float().mean()), 6) for name in effect},
        "auc": {name: round(float(checked.curves.auc(name).mean()), 6) for name in curves},
    }
