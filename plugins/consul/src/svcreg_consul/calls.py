"""What a request is for, so that every error can say so, and what was answered to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from svcreg_consul.options import Address

SAID_CHARACTERS = 300
"""Characters of an answer that an error message repeats."""

_TROUBLE = ("no cluster leader", "no known consul servers", "rpc error", "leadership lost")
"""What an agent says, in lower case, when it is up but cut off from its servers."""


class Call(NamedTuple):
    """What a request is for, for messages: an operation of the hook contract, and its service."""

    operation: str
    service: str | None = None

    def __str__(self) -> str:
        return self.operation + (f" of {self.service!r}" if self.service else "")


class Answer(NamedTuple):
    """What an agent answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    address: Address

    @property
    def text(self) -> str:
        """The beginning of the body, for messages."""
        return self.body[:SAID_CHARACTERS].decode("utf-8", "replace").strip()

    @property
    def is_cut_off(self) -> bool:
        """Whether the agent cannot reach its servers, or they have no leader."""
        return self.status >= 500 and any(word in self.text.lower() for word in _TROUBLE)
