"""The live view, rendered at chosen moments on windows of chosen sizes."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Literal

import pytest
from rich.console import Console

from svcreg import Event, Node, Service
from svcreg.cli import live
from svcreg.cli.live import LiveView

Action = Literal["create", "update", "delete"]


class View:
    """A live view of `hello` with a clock that the test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, lines: int = 24) -> None:
        self.now = 1000.0
        self.stale: float | None = None
        self._console = Console(
            file=io.StringIO(),
            width=120,
            height=lines,
            force_terminal=True,
            color_system="standard",
        )
        monkeypatch.setattr(live, "console", lambda: self._console)
        monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=lambda: self.now))
        self._view = LiveView("hello on \x1bacme", lambda: self.stale)

    def see(self, action: Action, *node_ids: str, version: str = "", name: str = "hello") -> None:
        """Take in an event about these nodes."""
        nodes = [Node(one, "10.0.0.5:80", {"zone": "\x1b[2J"}) for one in node_ids]
        self._view.apply(Event(action, Service(name, version, nodes=nodes), 0.0))

    def styled(self) -> str:
        """Return the view as it is written to a terminal."""
        with self._console.capture() as capture:
            self._console.print(self._view.render())
        return capture.get()

    def lines(self) -> list[str]:
        """Return the lines of the view without styles, blanks joined."""
        rendered = self._console.render_lines(self._view.render(), pad=False)
        return [" ".join("".join(part.text for part in line).split()) for line in rendered]


@pytest.fixture
def view(monkeypatch: pytest.MonkeyPatch) -> View:
    return View(monkeypatch)


def test_nothing_there_is_said(view: View) -> None:
    title, _, body = view.lines()
    assert title == r"hello on \x1bacme 0 nodes of 0 services Ctrl-C ends"
    assert body == "nothing is registered; waiting"


def test_nodes_are_rows_sorted_by_service_and_node(view: View) -> None:
    view.see("create", "h-2", "h-1", version="1.0")
    view.see("create", "x", name="alpha")
    view.now += 3
    view.see("update", "h-2", version="1.0")
    assert view.lines() == [
        r"hello on \x1bacme 3 nodes of 2 services Ctrl-C ends",
        "",
        "SERVICE VERSION NODE ADDRESS METADATA STATE",
        r"alpha - x 10.0.0.5:80 zone=\x1b[2J here 3 s",
        r"hello 1.0 h-1 10.0.0.5:80 zone=\x1b[2J here 3 s",
        r"hello 1.0 h-2 10.0.0.5:80 zone=\x1b[2J changed 0 s",
        "",
    ]


@pytest.mark.parametrize(
    ("seconds", "age"),
    [
        (1, "1 s"),
        (59, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h 0 min"),
        (9000, "2 h 30 min"),
    ],
)
def test_age_is_told_as_people_tell_it(view: View, seconds: float, age: str) -> None:
    view.see("create", "h-1")
    view.now += seconds
    assert view.lines()[3].endswith(f" here {age}")


def test_node_that_left_stays_in_sight_for_a_while(view: View) -> None:
    view.see("create", "h-1", "h-2")
    view.see("delete", "h-1")
    view.now += 14
    title, _, _, gone, here, _ = view.lines()
    assert "1 node of 1 service " in title
    assert gone.endswith("gone 14 s")
    assert here.endswith("here 14 s")
    assert "\x1b[9;31m" in view.styled()  # struck through, and red
    view.now += 2
    assert "h-1" not in view.styled()
    view.see("delete", "h-2")
    view.now += 16
    assert view.lines()[-1] == "nothing is registered; waiting"


def test_node_that_comes_back_is_here(view: View) -> None:
    view.see("create", "h-1")
    view.see("delete", "h-1")
    view.see("create", "h-1")
    view.now += 20
    assert view.lines()[3].endswith("here 20 s")


def test_node_that_moved_to_another_version_is_not_gone(view: View) -> None:
    view.see("create", "h-1", version="1.0")
    view.see("create", "h-1", version="2.0")
    view.see("delete", "h-1", version="1.0")
    [row] = view.lines()[3:-1]
    assert row.startswith("hello 2.0 h-1 ")
    assert " here " in row


def test_change_is_coloured_for_a_moment(view: View) -> None:
    view.see("create", "h-1")
    assert "\x1b[32m" in view.styled()
    view.see("update", "h-1")
    assert "\x1b[33m" in view.styled()
    view.now += 6
    assert "\x1b[32m" not in view.styled()
    assert "\x1b[33m" not in view.styled()


def test_registry_that_is_away_is_said_with_the_age_of_what_is_shown(view: View) -> None:
    view.see("create", "h-1")
    view.stale = 75.0
    assert view.lines()[0].endswith("the registry is away; this is what it said 1 min ago")
    assert "h-1" in view.styled()


def test_low_window_counts_what_it_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    view = View(monkeypatch, lines=8)
    view.see("create", *(f"h-{number}" for number in range(5)))
    lines = view.lines()
    assert len(lines) < 8  # the cursor needs one
    assert "5 nodes of 1 service" in lines[0]
    assert [line.split()[2] for line in lines[3:-1]] == ["h-0", "h-1", "h-2"]
    assert lines[-1] == "and 2 more; a higher window shows them"


def test_those_that_left_make_room_first(monkeypatch: pytest.MonkeyPatch) -> None:
    view = View(monkeypatch, lines=8)
    view.see("create", *(f"h-{number}" for number in range(4)))
    view.see("delete", "h-0", "h-1")
    lines = view.lines()
    assert [line.split()[2] for line in lines[3:-1]] == ["h-2", "h-3"]
    assert lines[-1] == "and 2 more; a higher window shows them"
