"""The words for ways to read attention, and whose is read; without torch, so that a wrong word is told at once."""

from typing import Any

# methods that need the gradient of the answer; all others only read the forward pass
GRADIENT_METHODS = ("gradient", "grad_rollout")
METHODS = ("auto", "raw", "rollout", *GRADIENT_METHODS, "threshold")
MASS = 0.6  # of a head's attention, that the mask of "threshold" holds (Caron et al. 2021)


# whose weights are asked by a verb of their own
_VERBS = {
    "ram": "glimpse", "show": "caption", "transformer": "translate", "seq2seq": "translate",
    "visual7w": "ask` or `sightline point", "segmenter": "segment",
}  # fmt: skip


def check_choice(method: str, mass: int | float) -> None:
    """Raises ValueError for a method that there is not, and a mass that is no share."""
    if method not in METHODS:
        raise ValueError(f"method {method!r} is not known; choose one of {', '.join(METHODS)}")
    if not 0 < mass < 1:
        raise ValueError(f"mass {mass} is the share of the attention that a mask holds, between 0 and 1")


def no_plain_model(name: str, card: dict[str, Any], transformer: bool) -> str:
    """Why bundled weights are none of a model that is shown a picture alone, by their card; "" where they are.

    `transformer` says whether they are of a plain Vision Transformer, which may give features instead of classes.
    """
    from sightline.checkpoints import bundled_names

    if "mean" in card and (card.get("classes") or transformer):
        return ""
    system = str(card.get("system"))
    verb = next((verb for known, verb in _VERBS.items() if system.startswith(known)), "")
    own = f"it is asked by `sightline {verb}`" if verb else "other systems read photographs through it"
    looks = "such as 'dino' or 'vit'" if "dino" in bundled_names() else "such as 'vit'"
    return (
        f"model {name!r} ({system}) is no plain image model; {own}; look takes bundled names {looks}, classify 'vit', "
        "both a folder, weights or a hub id"
    )


def usual_model() -> str:
    """The model that looks where none is named: DINO, never told what to look for, where it is bundled, else "vit"."""
    from sightline.checkpoints import bundled_names

    return "dino" if "dino" in bundled_names() else "vit"
