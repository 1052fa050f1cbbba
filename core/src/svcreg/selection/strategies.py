"""How one node is chosen among those that remain."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Protocol

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
