"""Does masking what it looked at change the answer?  The causal check that belongs beside every attention map.

A map shows where attention went; these tests show what that did.  Each edits the picture where a heat map points and
asks the model again, and does the same for control maps: the heat map itself moved to random places (same size, same
shapes) and a Gaussian at the centre, where photographers put things.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.lens.judge import Judge, Score
from sightline.lens.regions import centre_like, first, heat_on, highest, moved, ordered


@dataclass(frozen=True, eq=False)
class Curves:
    """Scores while the most looked-at pixels are deleted (or inserted) first, beside those of the controls.

    fractions            (points,) share of pixels edited, 0 … 1
    deletion, insertion  (images, points);  centre_… the same for a centred Gaussian
    random_…             (images, seeds, points) for the heat map moved to random places
    measure              what the score is, in words
    """

    fractions: Tensor
    deletion: Tensor
    insertion: Tensor
    random_deletion: Tensor
    random_insertion: Tensor
    centre_deletion: Tensor
    centre_insertion: Tensor
    measure: str

    def auc(self, curve: str) -> Tensor:
        """Area under one of the curves by the trapezoid rule from x = 0 (whole or empty picture) to x = 1."""
        return torch.trapezoid(getattr(self, curve), self.fractions, dim=-1)

    @property
    def verdict(self) -> str:
        """Whether the heat map finds what the answer rests on: beyond 2 standard deviations of the random places."""
        kept, (deletion, by) = float(self.auc("deletion").mean()), _mean_sd(self.auc("random_deletion"))
        sooner = kept < deletion - 2 * by
        gained, (insertion, by) = float(self.auc("insertion").mean()), _mean_sd(self.auc("random_insertion"))
        rises = gained > insertion + 2 * by
        found = [name for name, holds in (("deleting", sooner), ("inserting", rises)) if holds]
        if not found:
            return "step by step, the map orders the picture no better than the same map moved to random places"
        text = (
            f"step by step, {' and '.join(found)} what it looked at first changes the answer sooner than random places"
        )
        beats = {
            "deleting": kept < float(self.auc("centre_deletion").mean()),
            "inserting": gained > float(self.auc("centre_insertion").mean()),
        }
        return text if all(beats[name] for name in found) else text + ", but no sooner than the centre of the image"

    def summary(self) -> str:
        """One line: both areas, the controls', and the verdict."""
        parts = []
        for name, better in (("deletion", "lower"), ("insertion", "higher")):
            mean, spread = _mean_sd(self.auc(f"random_{name}"))
            parts.append(
                f"{name} AUC {float(self.auc(name).mean()):.3f} ({better} is better; random {mean:.3f} ± "
                f"{spread:.3f}, centre {float(self.auc(f'centre_{name}').mean()):.3f})"
            )
        return f"{' · '.join(parts)}, {self.measure}: {self.verdict}"


@dataclass(frozen=True, eq=False)
class MaskEffect:
    """The score without the looked-at region and with only that region, beside equally large control regions.

    whole, empty    (images,) score of the picture as it is, and with all of it filled
    without, only   (images,);  centre_without, centre_only the same for an equally large centred region
    random_…        (images, seeds) for the region moved to random places
    region          (images, height, width), True = looked at;  measure: what the score is, in words
    """

    whole: Tensor
    empty: Tensor
    without: Tensor
    only: Tensor
    random_without: Tensor
    random_only: Tensor
    centre_without: Tensor
    centre_only: Tensor
    region: Tensor
    measure: str

    @property
    def area(self) -> Tensor:
        """Share of the picture that was looked at, (images,)."""
        return self.region.float().mean((1, 2))

    @property
    def drop(self) -> Tensor:
        """How far the score falls without the looked-at region, (images,)."""
        return self.whole - self.without

    @property
    def random_drop(self) -> Tensor:
        """How far it falls without the region moved to random places, (images, seeds)."""
        return self.whole[:, None] - self.random_without

    @property
    def verdict(self) -> str:
        """What the drop says against chance: more only where it exceeds the random mean by 2 standard deviations.

        A drop under a twentieth of the score is told as such, however far above chance it lies.
        """
        drop, (chance, spread) = float(self.drop.mean()), _mean_sd(self.random_drop)
        if drop <= 0:
            return "removing what it looked at does not lower the score"
        if drop <= chance + 2 * spread:
            return "removing the region it looked at matters no more than removing a random one of the same size"
        if chance <= 0.02 * drop:
            text = "removing the region it looked at lowers the score; a random one of the same size hardly does"
        else:
            text = f"the region it looked at matters {drop / chance:.1f}x as much as a random one of the same size"
        if drop <= float((self.whole - self.centre_without).mean()):
            text += ", but no more than the centre of the image"
        share = drop / max(float(self.whole.mean()), 1e-9)
        return f"{text}; yet the score falls by {share:.1%} only" if share < 0.05 else text

    def summary(self) -> str:
        """One line: scores without and with only the region, the controls', and the verdict."""
        without, spread = _mean_sd(self.random_without)
        only, only_spread = _mean_sd(self.random_only)
        return (
            f"{self.measure} {float(self.whole.mean()):.3f}; without the {float(self.area.mean()):.0%} it looked at "
            f"{float(self.without.mean()):.3f} (random {without:.3f} ± {spread:.3f}, centre "
            f"{float(self.centre_without.mean()):.3f}); with only that {float(self.only.mean()):.3f} (random "
            f"{only:.3f} ± {only_spread:.3f}, centre {float(self.centre_only.mean()):.3f}): {self.verdict}"
        )


@torch.no_grad()
def deletion_insertion(
    model: Callable[[Tensor], Any],
    pixels: Float[Tensor, "images channels height width"],
    heat: Tensor,
    score: Score = None,
    *,
    steps: int = 16,
    fill: str | Tensor = "blur",
    seeds: int = 5,
    seed: int = 0,
    batch: int = 32,
) -> Curves:
    """Deletion and insertion curves (Petsiuk et al. 2018, RISE) of a heat map, of random places and of the centre.

    Deletion fills the most looked-at pixels first: a map that points at what matters makes the score fall at once
    (low area).  Insertion starts from the filled picture and brings them back (high area).  Areas are trapezoids over
    0 … 1 with both ends; they depend on `steps` and `fill`, so compare only figures made alike.

    pixels  what the model takes, normalised or not, any size.
    heat    (images, h, w) or (h, w): any resolution over the whole picture, enlarged bilinearly; higher = more.
    score   None: probability of the class the model gives to the whole picture, or, where it gives features, their
            cosine with those of the whole picture; "class" or "similarity" to say which (features in a 2-D tensor
            look like logits); or a function of the model's output that gives one number for each picture.
    fill    "blur" (Gaussian, a tenth of the shorter side), "mean" (the picture's colour), "zero", or a tensor.
    seeds   number of random placements, at least 2.  The model sees 2 · (steps - 1) · (seeds + 2) + 2 pictures for
            each image, `batch` at a time.

    Raises ValueError for a model in training mode, a heat map without contrast or of another batch, and a score
    that is not one number for each picture.
    """
    judge = Judge(model, pixels, score, fill, batch)
    heat = heat_on(heat, pixels)
    if steps < 2 or seeds < 2:
        raise ValueError(f"steps={steps} and seeds={seeds} must both be 2 or more.")
    maps = torch.stack([heat, *moved(heat, seeds, seed), centre_like(heat)], dim=1)  # (images, 1 + seeds + 1, H, W)
    ranks = ordered(maps.flatten(2)).argsort(dim=-1).view_as(maps)
    cuts = [round(heat[0].numel() * step / steps) for step in range(1, steps)]

    def edits() -> Iterator[tuple[int, Tensor]]:
        for image, of_image in enumerate(ranks):
            for rank in of_image:
                for cut in cuts:
                    yield image, rank >= cut
                    yield image, rank < cut

    inner = judge(edits()).view(*maps.shape[:2], steps - 1, 2)
    whole, empty = (end[:, None, None].expand(*maps.shape[:2], 1) for end in (judge.whole, judge.empty()))
    deletion = torch.cat([whole, inner[..., 0], empty], dim=-1)
    insertion = torch.cat([empty, inner[..., 1], whole], dim=-1)
    return Curves(
        fractions=torch.arange(steps + 1) / steps,
        deletion=deletion[:, 0],
        insertion=insertion[:, 0],
        random_deletion=deletion[:, 1:-1],
        random_insertion=insertion[:, 1:-1],
        centre_deletion=deletion[:, -1],
        centre_insertion=insertion[:, -1],
        measure=judge.measure,
    )


@torch.no_grad()
def mask_effect(
    model: Callable[[Tensor], Any],
    pixels: Float[Tensor, "images channels height width"],
    heat: Tensor,
    score: Score = None,
    *,
    mass: float = 0.6,
    area: float | None = None,
    fill: str | Tensor = "blur",
    seeds: int = 8,
    seed: int = 0,
    batch: int = 32,
) -> MaskEffect:
    """What the answer loses without the looked-at region, and keeps with only that, against equally large regions.

    The region is the smallest one that holds `mass` of the heat (which must be >= 0), or, where `area` is given, the
    highest `area` share of the picture.  Controls are that region moved to random places, flipped and shifted around
    the edges (so it keeps its size and its pieces, and may overlap itself), and the highest part, equally large, of a
    centred Gaussian.  The other arguments, and the errors, are those of `deletion_insertion`.
    """
    judge = Judge(model, pixels, score, fill, batch)
    heat = heat_on(heat, pixels)
    if seeds < 2:
        raise ValueError(f"seeds={seeds} must be 2 or more: one random region has no spread.")
    region = highest(heat, mass=mass) if area is None else highest(heat, area=area)
    centre = torch.stack([first(centre_like(heat[:1])[0], int(mask.sum())) for mask in region])
    masks = torch.stack([region, *moved(region, seeds, seed), centre], dim=1)
    edits = ((image, keep) for image, of_image in enumerate(masks) for mask in of_image for keep in (~mask, mask))
    scores = judge(edits).view(*masks.shape[:2], 2)
    return MaskEffect(
        whole=judge.whole,
        empty=judge.empty(),
        without=scores[:, 0, 0],
        only=scores[:, 0, 1],
        random_without=scores[:, 1:-1, 0],
        random_only=scores[:, 1:-1, 1],
        centre_without=scores[:, -1, 0],
        centre_only=scores[:, -1, 1],
        region=region.cpu(),
        measure=judge.measure,
    )


def _mean_sd(values: Tensor) -> tuple[float, float]:
    """Mean and standard deviation over seeds of the mean over images."""
    by_seed = values.mean(0)
    return float(by_seed.mean()), float(by_seed.std())
