"""Client-side selection: filters, strategies, and the `Selector` that does both."""

from svcreg.selection.attempts import Attempts, RetryBudget
from svcreg.selection.filters import Filter, endpoint, env, metadata, protocol, zone
from svcreg.selection.named import DEFAULT_STRATEGY, STRATEGIES, make_strategy
from svcreg.selection.selector import Selector
from svcreg.selection.selectors import Selectors
from svcreg.selection.strategies import Random, RoundRobin, Strategy

__all__ = [
    "DEFAULT_STRATEGY",
    "STRATEGIES",
    "Attempts",
    "Filter",
    "Random",
    "RetryBudget",
    "RoundRobin",
    "Selector",
    "Selectors",
    "Strategy",
    "endpoint",
    "env",
    "make_strategy",
    "metadata",
    "protocol",
    "zone",
]
