"""What a model consists of, found once: the modules in which attention calls may happen, and where they are."""

import re
import weakref
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import Any

import torch
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
    windowed: bool
    level: int
    fast: bool  # may it run as one kernel?


class Parts:
    """What a model consists of, and how its parts called attention last; holds no module, so that none lives on.

    Modules are told by their own dictionary of hooks, which replicas of `nn.DataParallel` share.
    """

    def __init__(self) -> None:
        self.known: dict[int, Part] = {}
        self.before: dict[int, Any] = {}  # `alike.Before` of parts, by the same number
        self.leaves: list[tuple[Any, bool]] = []  # of the first two levels; in a later one of numbered parts alike?
        self.followed: list[Part] = []  # have hooks below the dispatcher
        self.encoders: list[Any] = []
        self._all: list[Any] = []  # all modules but the next
        self._bare: list[Any] = []  # leaves that torch itself defines
        self._signs: list[Any] = []  # what they are told by

    def add(self, module: nn.Module, leaf: bool) -> None:
        """A module of the model, in the order in which it is walked."""
        (self._bare if leaf else self._all).append(weakref.ref(module))

    def close(self) -> None:
        """Remembers by what all modules are told."""
        self._signs = _signs([ref() for ref in self._all])

    def unchanged(self) -> bool:
        """Whether all modules are where they were, as they were."""
        try:
            return not any(map(_INSIDE, [ref() for ref in self._bare])) and self._signs == _signs(
                [ref() for ref in self._all]
            )
        except AttributeError:  # a module is gone
            return False


_GROUPS = "num_key_value_groups"
_INSIDE, _OWN = attrgetter("_modules"), attrgetter("__dict__")


def _signs(modules: list[Any]) -> list[Any]:
    """Class, names and identities of what is inside, hooks, windows, order of axes, groups of heads: without a line for
    each module, which would take most of the time that a recording takes to begin."""
    inside, own = [*map(_INSIDE, modules)], [*map(_OWN, modules)]
    children = chain.from_iterable(part.values() for part in inside)
    settings = [(type(one.get("window_size")), one.get("batch_first"), one.get(_GROUPS)) for one in own]
    hooks = [id(one["_forward_pre_hooks"]) for one in own]
    return [[*map(type, modules)], [tuple(part.keys()) for part in inside], [*map(id, children)], settings, hooks]


_found = weakref.WeakKeyDictionary[nn.Module, Parts]()


def parts_of(model: nn.Module) -> Parts:
    """The parts of a model, as found before if nothing that tells them has changed."""
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
        parts.add(module, leaf and kind is not nn.Module)
        if leaf and level in (1, 2):
            parts.leaves.append((ref, later))
        elif level in (1, 2) or not (leaf or _FEED_FORWARD.search(kind.__name__)):
            windowed = windowed or isinstance(setting_of(module, "window_size"), _SIZE)
            path = ".".join(names).removeprefix("_orig_mod").removeprefix(".")
            part = Part(ref, path, windowed, level, has_fast_path(module))
            parts.known[id(module._forward_pre_hooks)] = part
            if (level <= 2 and not later) or part.fast or hasattr(kind, "generate"):
                parts.followed.append(part)
            if isinstance(module, nn.TransformerEncoder):
                parts.encoders.append(ref)
        else:
            windowed = False
        numbered = level == 1 and "0" in children
        first = type(children["0"]) if numbered else None
        for child, inside in reversed(children.items()):
            later = numbered and child != "0" and child.isdigit() and type(inside) is first
            waiting.append(((*names, child), inside, windowed, later))
    if not isinstance(model, torch.jit.ScriptModule):  # whose modules are made anew at each look
        parts.close()
        with suppress(TypeError):
            _found[model] = parts
    return parts
