"""What a model consists of, found once: the modules in which attention calls may happen, and where they are."""

import re
import weakref
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from torch import nn

from sightline.lens.frame import setting_of
from sightline.lens.key import has_fast_path

_SIZE = (int, tuple, list)
# half of the modules of a ViT that are not torch's own
_FEED_FORWARD = re.compile(r"(MLP|Mlp|FeedForward|FFN|Activation)$")


@dataclass(frozen=True)
class Part:
    """A module of a model in which attention calls may happen; holds it weakly."""

    ref: Any
    path: str
    names: tuple[str, ...]  # of the modules from the model to this one
    windowed: bool
    level: int
    fast: bool  # may it run as one kernel?


def in_place(model: nn.Module, part: Part) -> bool:
    """Whether a part is found in the model by its name."""
    inside: nn.Module | None = model
    for name in part.names:
        inside = inside._modules.get(name) if inside is not None else None
    return inside is not None and inside is part.ref()


class Parts:
    """What a model consists of; holds no module, so that none lives on.

    Modules are told by their own dictionary of hooks, which replicas of `nn.DataParallel` share.
    """

    def __init__(self) -> None:
        self.top: list[tuple[Any, type[nn.Module], tuple[str, ...], list[int]]] = []  # levels 0 and 1
        self.known: dict[int, Part] = {}
        self.passed: dict[int, Any] = {}  # all other modules
        self.leaves: list[tuple[Any, bool]] = []  # of the first two levels; in a later one of numbered parts alike?
        self.followed: list[Part] = []  # have hooks below the dispatcher
        self.encoders: list[Any] = []

    def unchanged(self) -> bool:
        """Whether the first levels of the model are as they were."""
        for ref, kind, names, inside in self.top:
            module: Any = ref()
            if type(module) is not kind or tuple(module._modules.keys()) != names:
                return False
            if [*map(id, module._modules.values())] != inside:
                return False
        return True

    def find(self, module: nn.Module) -> tuple[Part | None, bool]:
        """The part that a running module is, or None; and whether it was known as it is now, but for its name."""
        number = id(module._forward_pre_hooks)
        part = self.known.get(number)
        if part is None:
            passed = self.passed.get(number)
            return None, passed is not None and passed() is module
        own = part.ref()
        if own is not module and (own is None or own._forward_pre_hooks is not module._forward_pre_hooks):
            return None, False
        if not part.windowed and isinstance(module.__dict__.get("window_size"), _SIZE):
            return None, False
        return part, True


_found = weakref.WeakKeyDictionary[nn.Module, Parts]()


def parts_of(model: nn.Module) -> Parts:
    """The parts of a model, as found before if its first levels have not changed."""
    try:
        known = _found.get(model)
    except TypeError:  # a model that compares by its values has no hash
        return walk(model)
    return known if known is not None and known.unchanged() else walk(model)


def walk(model: nn.Module) -> Parts:
    """Finds the parts of a model, and remembers them."""
    parts, seen = Parts(), set[int]()
    waiting: list[tuple[tuple[str, ...], Any, bool, bool]] = [((), model, False, False)]
    while waiting:
        names, module, windowed, later = waiting.pop()
        if module is None or id(module) in seen:
            continue
        seen.add(id(module))
        level, ref, kind, children = len(names), weakref.ref(module), type(module), module._modules
        leaf = kind.__module__.startswith("torch.nn.modules") and not children
        if level < 2:
            parts.top.append((ref, kind, tuple(children.keys()), [*map(id, children.values())]))
        if leaf and level in (1, 2):
            parts.leaves.append((ref, later))
        elif level in (1, 2) or not (leaf or _FEED_FORWARD.search(kind.__name__)):
            windowed = windowed or isinstance(setting_of(module, "window_size"), _SIZE)
            path = ".".join(names).removeprefix("_orig_mod").removeprefix(".")
            part = Part(ref, path, names, windowed, level, has_fast_path(module))
            parts.known[id(module._forward_pre_hooks)] = part
            if (level <= 2 and not later) or part.fast or hasattr(kind, "generate"):
                parts.followed.append(part)
            if isinstance(module, nn.TransformerEncoder):
                parts.encoders.append(ref)
        else:
            windowed = False
        if id(module._forward_pre_hooks) not in parts.known:
            parts.passed[id(module._forward_pre_hooks)] = ref
        numbered = level == 1 and "0" in children
        first = type(children["0"]) if numbered else None
        for child, inside in reversed(children.items()):
            later = numbered and child != "0" and child.isdigit() and type(inside) is first
            waiting.append(((*names, child), inside, windowed, later))
    with suppress(TypeError):
        _found[model] = parts
    return parts
