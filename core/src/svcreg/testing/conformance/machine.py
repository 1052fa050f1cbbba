"""Programs made at random do what a dictionary would do in the registry's place.

A program that fails is shrunk by hypothesis to the few steps that matter, which pytest then shows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from svcreg import Node, Service
from svcreg.testing.conformance.base import Base, World, normal
from svcreg.testing.conformance.faces import Client, Held, Watching

PROGRAMS = 50
STEPS = 10
"""Programs that one test runs, and steps that one of them has at most."""

SECONDS = 6.0
"""Seconds after which no more programs are run, where the backend is slow."""

READ_BY_ONE = 50
"""Programs that one registry reads: it watches two services for each."""

PATIENCE = 0.15
"""Seconds, at least, that what holds is waited for once one program has failed. Shrinking runs
many more, of which most fail as well, and each for as long as it is waited for."""

NAMES = st.sampled_from(["", "-b"])  # what one service's name has in addition to the other's
NODES = st.sampled_from(["x", "y"])
VERSIONS = st.sampled_from(["", "2"])
NUMBERS = st.integers(0, 2)

Key = tuple[str, str]
"""What is added to the service's name, and the node's id."""


class Machine(Base):
    """A test with programs that hypothesis makes up."""

    # hypothesis takes the jitter that core draws on another thread meanwhile for a strategy's.
    @pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
    def test_any_program_finds_what_a_model_of_it_has(self, world: World) -> None:
        bench = Bench(world)
        run_state_machine_as_test(
            lambda: Program(bench),  # type: ignore[arg-type] # it takes any callable
            settings=settings(
                max_examples=PROGRAMS,
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                derandomize=True,  # a failure is to be the same one tomorrow
                print_blob=False,  # so that nothing is needed to reproduce it
                report_multiple_bugs=False,
                phases=(Phase.generate, Phase.shrink),
                suppress_health_check=list(HealthCheck),
            ),
        )
        world.measure("random programs agree with a model", bench.programs, "programs")


class Bench:
    """What all programs of one test share: who reads, and how long it has to wait."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.reader = world.open()
        self.writer = world.open()
        self.programs = 0
        self.has_failed = False
        self._slowest = 0.0
        self._ends = time.monotonic() + SECONDS

    def begin(self) -> None:
        """Count a program in; now and then it has a reader that knows nothing yet."""
        self.programs += 1
        if self.programs % READ_BY_ONE == 0:
            self.reader.close()
            self.reader = self.world.open()

    @property
    def is_over(self) -> bool:
        """Whether the time for programs is up; not while one that fails is being shrunk."""
        return not self.has_failed and time.monotonic() > self._ends

    def eventually(self, seen: Callable[[], object], expected: object) -> None:
        """Wait until what is seen is what the model has; fail showing both."""
        settle = self.world.settle
        within = min(settle, max(PATIENCE, 10 * self._slowest)) if self.has_failed else settle
        try:
            seconds = self.world.eventually(lambda: seen() == expected, within)
        except AssertionError:
            self.has_failed = True
            assert seen() == expected  # shows both
            raise
        self._slowest = max(self._slowest, seconds)


class Program(RuleBasedStateMachine):
    """One program: steps of who registers, and looks of who reads, against a model of both.

    Once the time is up it goes through the model alone: which steps are possible must not depend
    on the clock, or hypothesis could not repeat them.
    """

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self.bench = bench
        self.base = bench.world.name()
        self.truth: dict[Key, Service] = {}
        self.held: dict[Key, Held | None] = {}
        self.watches: dict[str, Watching] = {}
        self.writer: Client = bench.writer
        self.is_idle = bench.is_over
        if not self.is_idle:
            bench.begin()

    @initialize(is_watched=st.booleans())
    def watch(self, *, is_watched: bool) -> None:
        if is_watched and not self.is_idle:
            for name in ("", "-b"):
                self.watches[name] = self.bench.reader.watch(self.base + name)

    @rule(name=NAMES, node=NODES, version=VERSIONS, number=NUMBERS)
    def register(self, name: str, node: str, version: str, number: int) -> None:
        service = self.service(name, node, version, number)
        self.held[name, node] = None if self.is_idle else self.writer.register(service, ttl=60)
        self.truth[name, node] = service

    @precondition(lambda self: self.held)
    @rule(which=NUMBERS, number=NUMBERS)
    def update(self, which: int, number: int) -> None:
        name, node = key = self.chosen(which)
        service = self.service(name, node, self.truth[key].version, number)
        if held := self.held[key]:
            held.update(nodes=service.nodes)
        self.truth[key] = service

    @precondition(lambda self: self.held)
    @rule(which=NUMBERS)
    def close_registration(self, which: int) -> None:
        key = self.chosen(which)
        if held := self.held.pop(key):
            held.close()
        del self.truth[key]

    @rule(name=NAMES, node=NODES)
    def deregister(self, name: str, node: str) -> None:
        if not self.is_idle:
            self.writer.deregister(self.service(name, node, "", 0))
        self.held.pop((name, node), None)
        self.truth.pop((name, node), None)

    @precondition(lambda self: self.held)
    @rule()
    def reopen(self) -> None:
        if not self.is_idle:
            self.writer.close()
            self.writer = self.bench.writer = self.bench.world.open()
        self.held.clear()
        self.truth.clear()

    @rule()
    def look(self) -> None:
        if not self.is_idle:
            for name in ("", "-b"):
                self.look_at(name)

    def look_at(self, name: str) -> None:
        """Wait until every reader sees of one service what the model has."""
        records = {key[1]: record for key, record in self.truth.items() if key[0] == name}
        services = grouped(records.values())
        # The writer reads nothing: each of its writes would wait until it shows, or half a second.
        reader, writer, full = self.bench.reader, self.writer, self.base + name
        self.bench.eventually(lambda: normal(reader.get(full)), services)
        self.bench.eventually(lambda: full in writer.list(), bool(services))
        if name in self.watches:
            self.bench.eventually(self.watches[name].state, records)

    def teardown(self) -> None:
        try:
            self.look()
        finally:
            for watching in self.watches.values():
                watching.close()
            for held in filter(None, self.held.values()):
                held.close()

    def chosen(self, which: int) -> Key:
        """Return the key of one of the registrations."""
        return sorted(self.held)[which % len(self.held)]

    def service(self, name: str, node: str, version: str, number: int) -> Service:
        """Return a service of this program with one node."""
        nodes = (Node(node, "10.0.0.5:8080", {"n": str(number)}),)
        return Service(self.base + name, version, nodes=nodes)


def grouped(records: Iterable[Service]) -> list[Service]:
    """Return one service per version, as `get` answers them."""
    versions: dict[str, Service] = {}
    for record in records:
        before = versions.get(record.version, record.with_nodes(()))
        versions[record.version] = before.with_nodes((*before.nodes, *record.nodes))
    return normal(list(versions.values()))
