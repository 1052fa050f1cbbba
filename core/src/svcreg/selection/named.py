"""Strategies by name: the built-in ones, then those that installed distributions add.

A strategy is an entry point of the group `svcreg.strategies`: a class or function that is called
without arguments, once per selector, and returns a `Strategy`. None is imported before it is named.
"""

from __future__ import annotations

from collections.abc import Callable

import importlib_metadata

from svcreg.errors import ConfigError
from svcreg.selection.strategies import Random, RoundRobin, Strategy

ADDED = "svcreg.strategies"

STRATEGIES: dict[str, Callable[[], Strategy]] = {"random": Random, "round_robin": RoundRobin}
"""Built in; nobody replaces them, since a program that names one means this one."""

DEFAULT_STRATEGY = "random"


def make_strategy(strategy: str | Strategy) -> Strategy:
    """Return a new strategy of this name, or the strategy itself.

    Raises:
        ConfigError: There is no strategy of that name, and these there are; or two distributions
            have it, or the one that has it is broken, and which.
    """
    if not isinstance(strategy, str):
        return strategy
    maker = STRATEGIES.get(strategy)
    return maker() if maker is not None else _make_added(strategy)


def _make_added(name: str) -> Strategy:
    # By value, because the same entry point may be found twice, as in an editable installation.
    points = {
        (_distribution(point), point.value): point
        for point in importlib_metadata.entry_points(group=ADDED, name=name)
    }
    if not points:
        added = {point.name for point in importlib_metadata.entry_points(group=ADDED)}
        names = [*STRATEGIES, *sorted(added - set(STRATEGIES))]
        raise ConfigError(f"there is no strategy {name!r}; there are {', '.join(names)}")
    if len(points) > 1:
        owners = " and ".join(sorted(owner for owner, _ in points))
        raise ConfigError(f"strategy {name!r} is provided by {owners}; uninstall all but one")
    (((owner, value), point),) = points.items()
    what = f"strategy {name!r} ({owner}, {value})"
    try:
        made = point.load()()
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{what} cannot be made: {type(error).__name__}: {error}") from error
    if not callable(getattr(made, "pick", None)):
        raise ConfigError(f"{what} made a {type(made).__name__}, which has no method pick")
    strategy: Strategy = made
    return strategy


def _distribution(point: importlib_metadata.EntryPoint) -> str:
    try:
        return f"{point.dist.name} {point.dist.version}" if point.dist else "no distribution"
    except Exception:  # importlib_metadata raises this or that when METADATA is missing or damaged
        return "a damaged distribution"
