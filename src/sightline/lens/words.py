"""Words to regions: where a vision-language model looks for each word that it writes, in one call."""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, overload

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sightline.lens.combine import merge_tokens, relative, word_groups
from sightline.lens.given import evaluating
from sightline.lens.layout import Layout
from sightline.lens.place import image_shape, infer_layout
from sightline.lens.place_models import setting
from sightline.lens.sequences import in_tower


@dataclass(frozen=True)
class WordRegion:
    """One word: its token ids, where the model looked when it chose them, and how much of its attention that was.

    `map` has the shape of the image's token grid ((frames,) height, width).  `mass_on_image` is the part of the
    attention, 0 to 1, that lay on the image; the rest was on words and special tokens.
    """

    word: str
    tokens: tuple[int, ...]
    map: Tensor
    mass_on_image: float


@dataclass(frozen=True)
class WordRegions(Sequence[WordRegion]):
    """The words of one answer, in order.  `sites` names the attention that was averaged, `layout` its grid."""

    words: tuple[WordRegion, ...]
    text: str
    method: str
    layout: Layout
    sites: tuple[str, ...]
    picture: Any = field(default=None, repr=False)

    @overload
    def __getitem__(self, index: int) -> WordRegion: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[WordRegion]: ...
    def __getitem__(self, index: int | slice) -> WordRegion | Sequence[WordRegion]:
        return self.words[index]

    def __len__(self) -> int:
        return len(self.words)

    def __iter__(self) -> Iterator[WordRegion]:
        return iter(self.words)

    def find(self, word: str) -> WordRegion:
        """The first region of this word, whatever its case.  Raises ValueError with the words there are."""
        for region in self.words:
            if region.word.strip(".,!?").lower() == word.lower():
                return region
        raise ValueError(f"{word!r} is not among the words: {', '.join(r.word for r in self.words)}")

    def strip(self, image: Any = None, **choices: Any) -> Any:
        """One small overlay per word (`sightline.lens.view.strip`), on `image` or on what the model was given.

        The map covers the image as the model saw it: a processor that crops needs the cropped photograph here.
        Raises ValueError for a video, or where there is no picture to draw on.
        """
        from sightline.lens.view import strip

        picture = self.picture if image is None else image
        if self.layout.frames > 1:
            raise ValueError("these maps have frames; draw one with sightline.lens.view.overlay(frame, map[i])")
        if picture is None:
            raise ValueError("no picture to draw on (the pixels were packed into patches): give image=")
        choices = {"title": self.text, "caption": self.caption, **choices}
        return strip(picture, [r.word for r in self.words], [r.map for r in self.words], **choices)

    @property
    def caption(self) -> str:
        """What the maps are, for beneath a picture."""
        mass = sum(region.mass_on_image for region in self.words) / max(len(self.words), 1)
        what = "compared with the mean over words" if self.method == "relative" else "as it was"
        return (
            f"Attention of the step that chose each word, {what}, mean of {len(self.sites)} layers and their heads; "
            f"{mass:.0%} of it lay on the image."
        )

    def save(self, path: Any, image: Any = None, **choices: Any) -> None:
        """Writes the strip as a picture file."""
        self.strip(image, **choices).save(path)

    def _repr_html_(self) -> str:
        if self.picture is None or self.layout.frames > 1:
            rows = "".join(f"<tr><td>{escape(r.word)}<td>{r.mass_on_image:.0%}" for r in self.words)
            return f"<table><tr><th>word<th>on the image{rows}</table>"
        file = io.BytesIO()
        self.strip().save(file, format="PNG")
        return (
            f'<img alt="{escape(self.text)}" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'
        )


@torch.no_grad()
def words_to_regions(
    model: nn.Module,
    inputs: Mapping[str, Any],
    *,
    tokenizer: Any,
    generated: Sequence[int] | Int[Tensor, "..."] | None = None,
    max_new_tokens: int = 32,
    layers: str | int | Sequence[int] = "all",
    method: str = "raw",
    image: Any = None,
    layout: Layout | None = None,
) -> WordRegions:
    """Where a vision-language model looks for each word it writes, averaged over heads and layers.

    Runs `model.generate(**inputs)` once, greedily, under `sightline.record`.  A word's map is the mean of the rows of
    its tokens; the row of a token is that of the query which *predicts* it, one position before the token itself (the
    last position of the prompt for the first one).  Sites: the decoder's cross attention where it has any (BLIP,
    VisionEncoderDecoder), else the language model's self attention, of which the image's columns are kept (LLaVA,
    Qwen-VL, GIT).

    Args:
        inputs: what the processor made of one image and its prompt (a batch of one).
        tokenizer: the tokenizer, or the processor that has it.
        generated: token ids to explain instead of the model's own choice; they are forced one by one.
        layers: "all", a layer number (negative from the end) or several.
        method: "raw", or "relative": divided by the mean map over the tokens, which takes away what every word looks
            at (sinks); 1 is the mean.  It needs two tokens.
        image: the photograph to draw on; else what the model was given, where that still is a picture.
        layout: how the image lies in the keys, where it cannot be found.

    Raises ValueError for a batch, a model that does not generate, and keys that are no places on the image.
    """
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
    if not hasattr(tokenizer, "convert_ids_to_tokens"):
        raise ValueError(
            f"tokenizer must be a tokenizer of transformers or a processor, got {type(tokenizer).__name__}"
        )
    if method not in ("raw", "relative"):
        raise ValueError(f'method is "raw" or "relative", got {method!r}')
    ids, seen, root = _write(model, inputs, generated, max_new_tokens)
    chosen = _choose_sites(seen, layers, len(ids), model, root)
    flat, places = [], None
    pixels = _pixels(inputs)
    for site in chosen:
        places = infer_layout(model, site.keys, pixels, path=_whole(root, site.path), inputs=inputs, layout=layout)
        flat.append(places.map(site.weights[0].mean(0)).flatten(1))  # (tokens, patches)
    assert places is not None
    rows = torch.stack(flat).mean(0)
    mass = rows.sum(1)
    kept = relative(rows) if method == "relative" else rows
    return _regions(ids, kept, mass, tokenizer, places, method, tuple(s.name for s in chosen), _picture(image, pixels))


def _write(
    model: nn.Module, inputs: Mapping[str, Any], generated: Any, max_new_tokens: int
) -> tuple[list[int], Any, str]:
    """The new token ids, the recording of the steps that chose them, and the path of the part that took the steps."""
    from sightline.lens.record import record
    from sightline.lens.select import LAST

    if not hasattr(model, "generate"):
        raise ValueError(f"{type(model).__name__} has no generate(): give the model with its language head")
    sizes = {len(v) for k, v in inputs.items() if k in ("input_ids", "decoder_input_ids") and isinstance(v, Tensor)}
    if sizes - {1}:
        raise ValueError(f"one image and its prompt at a time: input_ids hold {max(sizes)} sequences")
    wanted = [] if generated is None else [int(i) for i in torch.as_tensor(generated).flatten()]
    settings = {"max_new_tokens": max_new_tokens} if generated is None else _forcing(wanted)
    root = _stepping(model)
    with evaluating(model), record(model.get_submodule(root), queries=LAST) as seen:
        told = model.generate(  # type: ignore[operator]
            **inputs, do_sample=False, num_beams=1, use_cache=True, **settings
        )
    sequences = getattr(told, "sequences", told)
    if len(sequences) != 1:
        raise ValueError(f"one image at a time: the model wrote {len(sequences)} texts")
    steps = max((len(s.calls) for s in seen if not in_tower(model, _whole(root, s.path))), default=0)
    if wanted and steps != len(wanted):
        raise ValueError(
            f"the model stopped after {steps} of the {len(wanted)} tokens in generated: "
            "is an end-of-text token among them?"
        )
    return sequences[0, len(sequences[0]) - steps :].tolist(), seen, root


def _stepping(model: nn.Module) -> str:
    """Path of the part that takes the steps: BLIP's own generate() calls that of its text decoder."""
    from transformers import GenerationMixin

    for path, part in model.named_modules():
        if getattr(type(part), "generate", None) is GenerationMixin.generate:
            return path
    return ""


def _forcing(wanted: list[int]) -> dict[str, Any]:
    """Settings of `generate` that leave one token possible at each step."""
    from transformers import LogitsProcessor, LogitsProcessorList

    if not wanted:
        raise ValueError("generated is empty: give at least one token id, or None to let the model write")

    class Forced(LogitsProcessor):
        """Gives every other token no chance."""

        step = 0

        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            only = torch.full_like(scores, -torch.inf)
            only[:, wanted[min(self.step, len(wanted) - 1)]] = 0
            self.step += 1
            return only

    count = len(wanted)
    return {
        "max_new_tokens": count,
        "min_new_tokens": count,
        "logits_processor": LogitsProcessorList([Forced()]),
    }


def _whole(root: str, path: str) -> str:
    return ".".join(filter(None, (root, path)))


def _choose_sites(seen: Any, layers: str | int | Sequence[int], steps: int, model: nn.Module, root: str) -> list[Any]:
    """The decoder's sites that ran at every step: cross attention where there is some, else self attention."""
    ran = [s for s in seen if len(s.calls) == steps and not in_tower(model, _whole(root, s.path))]
    found = [s for s in ran if s.kind == "cross"] or ran
    if not found:
        raise ValueError(
            f"no attention ran at each of the {steps} steps; what was seen: "
            f"{', '.join(f'{s.name} ({len(s.calls)} calls)' for s in list(seen)[:6])}. Was a cache used?"
        )
    if isinstance(layers, str):
        if layers != "all":
            raise ValueError(f'layers is "all", a number or numbers below {len(found)}, got {layers!r}')
        return found
    numbers = [layers] if isinstance(layers, int) else list(layers)
    if not numbers or any(not -len(found) <= n < len(found) for n in numbers):
        raise ValueError(f"layers={layers!r}: there are {len(found)} layers, 0 to {len(found) - 1}")
    return [found[n] for n in numbers]


def _regions(
    ids: list[int],
    rows: Float[Tensor, "tokens patches"],
    mass: Float[Tensor, " tokens"],
    tokenizer: Any,
    layout: Layout,
    method: str,
    sites: tuple[str, ...],
    picture: Any,
) -> WordRegions:
    special = set(getattr(tokenizer, "all_special_ids", ()))
    words = []
    groups = word_groups(tokenizer.convert_ids_to_tokens(ids))
    kept = [group for group in groups if any(ids[i] not in special for i in group.tokens) and group.text.strip()]
    if not kept:
        raise ValueError(f"nothing but special tokens was written: {tokenizer.convert_ids_to_tokens(ids)}")
    frames = (layout.frames,) if layout.frames > 1 else ()
    maps = merge_tokens(rows, kept, dim=0, how="mean").reshape(-1, *frames, layout.height, layout.width)
    masses = merge_tokens(mass, kept, dim=0, how="mean")
    for group, one, part in zip(kept, maps, masses.tolist(), strict=True):
        words.append(WordRegion(group.text, tuple(ids[i] for i in group.tokens), one, part))
    text = tokenizer.decode(ids, skip_special_tokens=True).strip()
    return WordRegions(tuple(words), text, method, layout, sites, picture)


def _pixels(inputs: Mapping[str, Any]) -> Tensor | None:
    named = setting(inputs, "pixel_values", "pixel_values_videos", "flattened_patches", "images")
    return named if isinstance(named, Tensor) else None


def _picture(image: Any, pixels: Tensor | None) -> Any:
    """The photograph, else the pixels of a single image stretched to 0..1: what the model was given."""
    if image is not None or pixels is None or pixels.dim() != 4 or len(pixels) != 1 or image_shape(pixels) is None:
        return image
    from PIL import Image

    shown = pixels[0].float().movedim(0, -1)
    low, high = shown.amin((0, 1)), shown.amax((0, 1))
    return Image.fromarray(((shown - low) / (high - low).clamp_min(1e-6) * 255).byte().cpu().numpy())
