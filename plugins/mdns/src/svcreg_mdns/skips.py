"""Counts the records that are left out, and names some of them in the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

LOG_LINES_PER_MINUTE = 10
"""Bad records named in the log; more are only counted, so that a flood does not become another."""

_log = logging.getLogger("svcreg.mdns")


class Skips:
    """Call it from one thread only.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.count = 0
        """Records left out so far: bad, or too many."""
        self._clock = clock
        self._minute = 0
        self._lines = 0

    def add(self, name: str, why: str) -> None:
        """Note that a record was left out."""
        self.count += 1
        minute = int(self._clock() / 60)
        if minute != self._minute:
            self._minute, self._lines = minute, 0
        if self._lines < LOG_LINES_PER_MINUTE:
            self._lines += 1
            _log.warning("skipping record %.80r: %s (%d skipped so far)", name, why, self.count)
