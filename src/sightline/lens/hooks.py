"""Hooks on many modules at once."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle


class Hooks:
    """Hooks on many modules, put in and taken out at once under one number.

    `register_forward_pre_hook` makes a handle of its own for each; on a model of a hundred modules that costs more
    than all other work of the lens together.
    """

    def __init__(self) -> None:
        self._number = -1
        self._hooks: list[tuple[nn.Module, Any, Any]] = []
        self._resting: list[tuple[nn.Module, Any, Any]] = []

    def __bool__(self) -> bool:
        return bool(self._hooks or self._resting)

    def add(self, module: nn.Module, enter: Any = None, leave: Any = None, rests: bool = False) -> None:
        """Runs `enter(module, args, kwargs)` before a module and `leave(module, args, output)` after it.

        Those that rest are taken out between `rest` and `resume`.
        """
        hook = module, enter, leave
        (self._resting if rests else self._hooks).append(hook)
        self._put((hook,))

    def surround(self, module: nn.Module, enter: Any, leave: Any) -> None:
        """The same before all other hooks, and `leave` also where the module fails."""
        self.add(module, enter, leave)
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

    def _put(self, hooks: Iterable[tuple[nn.Module, Any, Any]]) -> None:
        if self._number < 0:
            self._number = RemovableHandle(OrderedDict()).id  # a number that nobody else has
        number = self._number
        for module, enter, leave in hooks:
            if enter is not None:
                module._forward_pre_hooks_with_kwargs[number] = True
                module._forward_pre_hooks[number] = enter
            if leave is not None:
                module._forward_hooks[number] = leave

    def _take(self, hooks: Iterable[tuple[nn.Module, Any, Any]]) -> None:
        number = self._number
        for module, enter, leave in hooks:
            if enter is not None:
                module._forward_pre_hooks.pop(number, None)
                module._forward_pre_hooks_with_kwargs.pop(number, None)
            if leave is not None:
                module._forward_hooks.pop(number, None)
                if module._forward_hooks_always_called:
                    module._forward_hooks_always_called.pop(number, None)
