"""`list` answers from memory while fresh, asks once for many, and survives an outage."""

from __future__ import annotations

import asyncio
import time

import pytest

from svcreg.engine import names as module
from svcreg.engine.names import Names
from svcreg.errors import RegistryUnavailableError
from tests.support.engine import asynchronous, faulty, service, until


@asynchronous
async def test_fresh_answer_is_given_without_asking() -> None:
    faults, dispatch = faulty("async")
    faults.store.put(service("a"), 60, "x")
    names = Names(dispatch)
    assert names.fresh() is None
    assert await names.get() == ("greeter",)
    assert names.fresh() == ("greeter",)
    assert await names.get() == ("greeter",)
    assert faults.count("list") == 1


@asynchronous
async def test_change_of_our_own_makes_the_next_reader_ask() -> None:
    faults, dispatch = faulty("async")
    names = Names(dispatch)
    assert await names.get() == ()
    faults.store.put(service("a"), 60, "x")
    names.invalidate()
    assert names.fresh() is None
    assert await names.get() == ("greeter",)


@asynchronous
async def test_old_answer_is_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_AGE", 0.01)
    faults, dispatch = faulty("async")
    names = Names(dispatch)
    await names.get()
    await until(lambda: names.fresh() is None)
    await names.get()
    assert faults.count("list") == 2


@asynchronous
async def test_readers_at_one_moment_share_one_call() -> None:
    faults, dispatch = faulty("def")
    faults.store.put(service("a"), 60, "x")
    faults.delay(0.03, "list")
    names = Names(dispatch)
    assert await asyncio.gather(*(names.get() for _ in range(50))) == [("greeter",)] * 50
    assert faults.count("list") == 1


@asynchronous
async def test_reader_that_gives_up_does_not_end_the_call_of_the_others() -> None:
    faults, dispatch = faulty("async")
    faults.delay(0.03, "list")
    names = Names(dispatch)
    first, second = asyncio.create_task(names.get()), asyncio.create_task(names.get())
    await until(lambda: faults.count("list"))
    first.cancel()
    assert await second == ()
    assert faults.count("list") == 1


@asynchronous
async def test_older_answer_serves_while_the_registry_is_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_AGE", 0.0)
    monkeypatch.setattr(module, "REFRESH_PATIENCE", 0.02)
    faults, dispatch = faulty("async")
    faults.store.put(service("a"), 60, "x")
    names = Names(dispatch)
    await names.get()
    faults.hang("list")
    started = time.monotonic()
    assert await names.get() == ("greeter",)
    assert 0.01 <= time.monotonic() - started < 5
    assert await names.get() == ("greeter",)
    assert faults.count("list") == 2  # the one that hangs is not doubled
    faults.heal()
    await until(lambda: names._task is None)


@asynchronous
async def test_older_answer_serves_while_the_registry_is_down_without_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_AGE", 0.0)
    faults, dispatch = faulty("async")
    faults.store.put(service("a"), 60, "x")
    names = Names(dispatch)
    await names.get()
    faults.fail("list")
    assert await names.get() == ("greeter",)
    assert names.fresh() is None
    faults.store.put(service("a", name="other"), 60, "x")
    faults.heal()
    faults.delay(0.02, "list")
    assert await names.get() == ("greeter",)  # it has failed before, so nobody waits for it
    await until(lambda: names._error is None)
    assert await names.get() == ("greeter", "other")


@asynchronous
async def test_failure_is_raised_where_nothing_was_ever_known_and_not_repeated_at_once() -> None:
    faults, dispatch = faulty("async")
    faults.fail("list")
    names = Names(dispatch)
    raised = []
    for _ in range(20):
        with pytest.raises(RegistryUnavailableError) as caught:
            await names.get()
        raised.append(caught.value)
    assert faults.count("list") == 1
    assert len({id(error) for error in raised}) == 20  # each reader has a traceback of its own
    assert all(isinstance(error.__cause__, ConnectionRefusedError) for error in raised)
