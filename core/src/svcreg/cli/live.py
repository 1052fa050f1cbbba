"""The live view of `svcreg watch` on a terminal: a table that follows the registry."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

import svcreg
from svcreg import Event, Node
from svcreg.cli.output import add_row, clean, console, format_metadata, table

_REFRESHES = 4
"""Per second, so that ages count visibly; a change itself is shown at once."""

_GONE_SHOWN = 15.0
"""Seconds that a node which left stays in the view, struck through."""

_FRESH = 5.0
"""Seconds that a change is coloured."""

_FRAME_LINES = 5
"""Title, blank line, table header, the count of what does not fit, and the cursor's line."""

_STYLES = {"create": "green", "update": "yellow", "delete": "red strike"}
_WORDS = {"create": "here", "update": "changed", "delete": "gone"}


@dataclass
class _Row:
    version: str
    node: Node
    action: str
    since: float  # monotonic clock


class LiveView:
    """The nodes seen so far, with the last change of each.

    `apply` is called by the thread that reads events, `render` by the one that refreshes.
    `staleness` returns for how many seconds the registry has been away, None when it is not.
    """

    def __init__(self, title: str, staleness: Callable[[], float | None]) -> None:
        self._title = title
        self._staleness = staleness
        self._rows: dict[tuple[str, str], _Row] = {}
        self._lock = threading.Lock()

    def apply(self, event: Event) -> None:
        """Take in one event."""
        service = event.service
        with self._lock:
            for node in service.nodes:
                key = (service.name, node.id)
                known = self._rows.get(key)
                # A node that moved to another version leaves the old one; it is not gone.
                if event.action == "delete" and known and known.version != service.version:
                    continue
                self._rows[key] = _Row(service.version, node, event.action, time.monotonic())

    def render(self) -> RenderableType:
        """Return the view as of now."""
        now = time.monotonic()
        with self._lock:
            for key, row in list(self._rows.items()):
                if row.action == "delete" and now - row.since > _GONE_SHOWN:
                    del self._rows[key]
            rows = sorted(self._rows.items())
        here = [name for (name, _), row in rows if row.action != "delete"]
        counts = f"{_count(len(here), 'node')} of {_count(len(set(here)), 'service')}"
        title = Text.assemble((clean(self._title), "bold"), "  ", (counts, "cyan"))
        age = self._staleness()
        if age is None:
            title.append("  Ctrl-C ends", "dim")
        else:
            title.append(f"  the registry is away; this is what it said {_age(age)} ago", "red")
        if not rows:
            return Group(title, "", Text("nothing is registered; waiting", "dim"))
        body = table(("SERVICE", "VERSION", "NODE", "ADDRESS", "METADATA", "STATE"), ())
        room = max(1, console().height - _FRAME_LINES)
        total = len(rows)
        if total > room:  # those that left make room first
            rows = [item for item in rows if item[1].action != "delete"]
        for (name, node_id), row in rows[:room]:
            age = now - row.since
            state = f"{_WORDS[row.action]} {_age(age)}"
            cells = (name, row.version or "-", node_id, row.node.address)
            style = _STYLES[row.action] if age < _FRESH or row.action == "delete" else ""
            add_row(body, (*cells, format_metadata(row.node.metadata), state), style)
        left_out = total - min(len(rows), room)
        more = Text(
            f"and {left_out} more; a higher window shows them" if left_out > 0 else "", "dim"
        )
        return Group(title, "", body, more)


def show_live(registry: svcreg.Registry, name: str | None, *, title: str) -> None:
    """Show what is there and follow every change until interrupted; the last view stays."""

    def staleness() -> float | None:
        feeds = registry.status().feeds
        return next((feed.age for feed in feeds if feed.stale and feed.name == name), None)

    view = LiveView(title, staleness)
    with (
        registry.watch(name) as events,
        Live(get_renderable=view.render, console=console(), refresh_per_second=_REFRESHES) as live,
    ):
        live.refresh()  # rich would wait for the first interval to end
        for event in events:
            view.apply(event)
            live.refresh()


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _age(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
