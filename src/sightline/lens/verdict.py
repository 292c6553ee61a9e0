"""The causal check of one map: mask effect and deletion and insertion curves together."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from sightline.lens.check import Curves, MaskEffect, deletion_insertion, mask_effect
from sightline.lens.given import evaluating
from sightline.lens.page_data import PageCurve


@dataclass(frozen=True, eq=False)
class Check:
    """What masking the map did to the answer, beside random places and the centre."""

    effect: MaskEffect
    curves: Curves

    def summary(self) -> str:
        """The mask effect in one line: scores, controls and the verdict."""
        return self.effect.summary()

    def __str__(self) -> str:
        return f"{self.effect.summary()}\n{self.curves.summary()}"

    @property
    def verdict(self) -> str:
        """The mask effect's verdict in words that claim no more than was measured."""
        return self.effect.verdict

    def page_curves(self) -> list[PageCurve]:
        """The curves as a page draws them; the random control is the mean over its seeds."""
        fractions = self.curves.fractions.tolist()
        drawn = []
        for group in ("deletion", "insertion"):
            for prefix, name in (("", "this map"), ("random_", "random places"), ("centre_", "centre")):
                values = getattr(self.curves, prefix + group).float()
                scores = values[0].mean(0) if values.dim() == 3 else values[0]
                auc = float(self.curves.auc(prefix + group)[0].mean())
                drawn.append(PageCurve(name=name, fractions=fractions, scores=scores.tolist(), auc=auc, group=group))
        return drawn


def check(
    model: nn.Module, pixels: Float[Tensor, "images 3 height width"], heat: Tensor, *, steps: int = 12, **choices: Any
) -> Check:
    """Both checks of a heat map (height, width) on the model's own input; see `lens.check` for what each measures.

    `choices` (score, fill, seeds, batch) go to both.  Raises ValueError as they do.
    """
    with evaluating(model):
        effect = mask_effect(model, pixels, heat, **choices)
        return Check(effect, deletion_insertion(model, pixels, heat, steps=steps, **choices))
