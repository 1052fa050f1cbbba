"""How one node is chosen among those that remain."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from typing import Protocol

from svcreg.errors import ConfigError
from svcreg.model import Node


class Strategy(Protocol):
    """Chooses a node; called from any thread, never blocks, does no I/O."""

    def pick(self, nodes: Sequence[Node], key: str | None) -> Node:
        """Return one of `nodes`, which is never empty; `key` is for strategies that stick to it."""
        ...


class Random:
    """Every node with the same probability, independently each time."""

    def pick(self, nodes: Sequence[Node], key: str | None) -> Node:
        """Return any node."""
        return nodes[int(random.random() * len(nodes))]


class RoundRobin:
    """The nodes in turn, from one position that all threads share."""

    def __init__(self) -> None:
        self._position = itertools.count()

    def pick(self, nodes: Sequence[Node], key: str | None) -> Node:
        """Return the next node."""
        return nodes[next(self._position) % len(nodes)]


STRATEGIES: dict[str, Callable[[], Strategy]] = {"random": Random, "round_robin": RoundRobin}

DEFAULT_STRATEGY = "random"


def make_strategy(strategy: str | Strategy) -> Strategy:
    """Return the strategy of a name, or the strategy itself.

    Raises:
        ConfigError: There is no strategy of that name; names those that there are.
    """
    if not isinstance(strategy, str):
        return strategy
    maker = STRATEGIES.get(strategy)
    if maker is None:
        raise ConfigError(f"there is no strategy {strategy!r}; there are {', '.join(STRATEGIES)}")
    return maker()
