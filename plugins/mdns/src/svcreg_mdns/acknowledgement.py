"""Waits until one's own announcements have come back from the link."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

ACKNOWLEDGE_SECONDS = 0.5
"""How long to wait for one's own announcement to come back before warning that it did not."""

_log = logging.getLogger("svcreg.mdns")


class Acknowledgement:
    """Whoever hears itself can be heard by others. Warns once if that is not so."""

    def __init__(self) -> None:
        self._has_warned = False

    async def wait(self, heard: Iterable[asyncio.Event], interfaces: str) -> None:
        """Wait until all is heard, or for long enough; `interfaces` is for the warning."""
        try:
            async with asyncio.timeout(ACKNOWLEDGE_SECONDS):
                for event in heard:
                    await event.wait()
        except TimeoutError:
            if not self._has_warned:
                self._has_warned = True
                _log.warning(
                    "our own announcements do not come back on %s: is UDP port 5353 or multicast "
                    "blocked? Others may not find this service",
                    interfaces,
                )
