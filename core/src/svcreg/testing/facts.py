"""What one test of the suite has to say to the report, carried by pytest's user properties.

A property is plain data, so that it also travels from xdist's workers to the process that reports.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

PROPERTY = "svcreg"


class Measured(msgspec.Struct, frozen=True):
    """What a test measured, and what it may be at most where the contract says so."""

    value: float
    unit: str
    bound: float | None = None


class Facts(msgspec.Struct):
    """A test, the backend it ran against, and what it measured; completed while it runs."""

    test: str
    area: str
    needs: list[str]
    face: str | None = None
    backend: str | None = None
    distribution: str = ""
    version: str = ""
    server: str | None = None
    capabilities: list[str] = []
    measured: dict[str, Measured] = {}

    def as_property(self) -> tuple[str, Any]:
        """Return this as one of a test's user properties."""
        return PROPERTY, msgspec.to_builtins(self)


def read(properties: Iterable[tuple[str, object]]) -> Facts | None:
    """Return the facts among a report's user properties; None for a test of something else."""
    found = [value for name, value in properties if name == PROPERTY]
    return msgspec.convert(found[-1], Facts) if found else None
