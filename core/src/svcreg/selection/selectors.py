"""The selectors of one registry."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from svcreg.model import Service
from svcreg.selection.attempts import RetryBudget
from svcreg.selection.filters import Filter
from svcreg.selection.named import DEFAULT_STRATEGY, make_strategy
from svcreg.selection.selector import Selector
from svcreg.selection.strategies import Strategy


class Selectors:
    """Makes selectors over what one registry knows. Any thread may use it.

    Args:
        services: Returns the newest snapshot of a service from memory, or None.
        warm: Begins to watch a service, without waiting for it.
    """

    def __init__(
        self,
        services: Callable[[str], tuple[Service, ...] | None],
        warm: Callable[[str], None],
    ) -> None:
        self.budget = RetryBudget()
        self._services = services
        self._warm = warm
        self._default = os.environ.get("MICRO_SELECTOR") or DEFAULT_STRATEGY
        self._shared: dict[tuple[str, str], tuple[Strategy, Selector]] = {}

    def make(
        self, name: str, strategy: str | Strategy | None, filters: Sequence[Filter]
    ) -> Selector:
        """Return a new selector, with a position of its own."""
        made = make_strategy(self._default if strategy is None else strategy)
        return Selector(name, self._services, self._warm, made, filters)

    def shared(
        self, name: str, strategy: str | Strategy | None, filters: Sequence[Filter]
    ) -> Selector:
        """Return a selector whose strategy goes on where the last call with its name left off."""
        chosen = self._default if strategy is None else strategy
        if not isinstance(chosen, str):
            return self.make(name, chosen, filters)
        found = self._shared.get((name, chosen))
        if found is None:
            made = make_strategy(chosen)
            found = (made, Selector(name, self._services, self._warm, made))
            found = self._shared.setdefault((name, chosen), found)
        return self.make(name, found[0], filters) if filters else found[1]
