"""Hooks on many modules at once."""

from collections import OrderedDict
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

Hook = tuple[nn.Module, Any, Any]  # a module, what runs before it and what runs after it (None: nothing)


class Hooks:
    """Hooks on many modules, put in and taken out at once under one number.

    `enter(module, args, kwargs)` runs before a module and `leave(module, args, output)` after it; those that rest are
    taken out between `rest` and `resume`.

    `register_forward_pre_hook` makes a handle of its own for each; on a model of a hundred modules that costs more
    than all other work of the lens together.
    """

    def __init__(self, hooks: list[Hook], resting: list[Hook] | None = None) -> None:
        self._number = RemovableHandle(OrderedDict()).id  # a number that nobody else has
        self._hooks, self._resting = hooks, resting or []
        self._put(self._hooks)
        self._put(self._resting)

    def surround(self) -> None:
        """Runs before all other hooks of its modules, and after them also where a module fails."""
        for module, _, _ in self._hooks:
            module._forward_pre_hooks.move_to_end(self._number, last=False)  # type: ignore[attr-defined]
            module._forward_hooks_always_called[self._number] = True

    def rest(self) -> None:
        """Takes out those that rest for a while."""
        self._take(self._resting)

    def resume(self) -> None:
        """Puts them in again."""
        self._put(self._resting)

    def remove(self) -> None:
        """Leaves every module as it was."""
        self._take(self._hooks)
        self._take(self._resting)
        self._hooks.clear()
        self._resting.clear()

    def _put(self, hooks: list[Hook]) -> None:
        number = self._number
        for module, enter, leave in hooks:
            if enter is not None:
                module._forward_pre_hooks_with_kwargs[number] = True
                module._forward_pre_hooks[number] = enter
            if leave is not None:
                module._forward_hooks[number] = leave

    def _take(self, hooks: list[Hook]) -> None:
        number = self._number
        for module, enter, leave in hooks:
            if enter is not None:
                module._forward_pre_hooks.pop(number, None)
                module._forward_pre_hooks_with_kwargs.pop(number, None)
            if leave is not None:
                module._forward_hooks.pop(number, None)
                if module._forward_hooks_always_called:
                    module._forward_hooks_always_called.pop(number, None)
