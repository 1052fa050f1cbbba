"""What a request is for, so that every error can say so."""

from __future__ import annotations

from typing import NamedTuple


class Call(NamedTuple):
    """What a request is for, for messages: an operation of the hook contract, and its service."""

    operation: str
    service: str | None = None

    def __str__(self) -> str:
        return self.operation + (f" of {self.service!r}" if self.service else "")
