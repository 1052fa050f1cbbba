"""Registration and liveness: rows 1 to 8, 12 and 14 of the list of failures."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time

import pytest

import svcreg
from svcreg import RegistryError, RegistryTimeoutError, RegistryUnavailableError, health
from tests.support.faulty_world import World, eventually, one, stays

TTL = 1.0  # the shortest that core accepts


def test_row_01_registration_is_back_within_a_ttl_after_a_cut_of_three(world: World) -> None:
    registration = world.open().register(one("greeter"), ttl=TTL)
    world.faults.cut()
    cut_at = time.monotonic()
    eventually(lambda: registration.state == "lost", TTL * 1.5)
    assert isinstance(registration.error, RegistryError)
    eventually(lambda: not world.faults.ids(), TTL * 2)
    eventually(lambda: time.monotonic() - cut_at > 3 * TTL)
    asked = world.faults.count("register", "renew", since=cut_at)
    assert 3 <= asked <= 20 * 3 * TTL  # it never gives up, nor stampedes
    world.faults.heal()
    eventually(lambda: world.faults.ids() == {"node"}, TTL)
    eventually(lambda: registration.state == "active", 0.5)
    assert registration.error is None


def test_row_02_renewals_that_hang_are_noticed_and_made_good(world: World) -> None:
    registration = world.open(timeout=5).register(one("greeter"), ttl=TTL)
    first = registration.last_renewal or 0.0
    hung_at = time.monotonic()
    world.faults.hang("renew" if world.has_renew else "register")
    if world.has_renew:
        # Registering anew works, so the node never goes.
        stays(lambda: world.faults.ids() == {"node"}, 2 * TTL)
        assert world.faults.count("register", since=hung_at) >= 1
        assert (registration.last_renewal or 0.0) > first + TTL
    else:
        eventually(lambda: registration.state == "lost", TTL)
        eventually(lambda: not world.faults.ids(), TTL * 2)
        world.faults.heal()
        eventually(lambda: world.faults.ids() == {"node"}, TTL)
    eventually(lambda: registration.state == "active", TTL)


def test_row_02_loss_is_judged_by_the_last_acknowledgement(world: World) -> None:
    registration = world.open(timeout=5).register(one("greeter"), ttl=3.0)
    acknowledged = time.monotonic()
    world.faults.hang()
    eventually(lambda: registration.state == "lost", 3.0)
    assert 1.8 <= time.monotonic() - acknowledged <= 2.7  # 2/3 of the TTL, and time to mend it
    assert registration.last_renewal is not None
    assert time.time() - registration.last_renewal >= 1.8


def test_row_03_blocked_application_loop_costs_nobody_their_lease(world: World) -> None:
    async def application() -> None:
        async with svcreg.aio.open(world.url) as registry:
            registration = await registry.register(one("greeter"), ttl=TTL)
            time.sleep(2 * TTL)  # noqa: ASYNC251 - what the test is about
            assert registration.state == "active"
            assert registration.last_renewal is not None
            assert time.time() - registration.last_renewal < TTL / 2

    failures: list[BaseException] = []

    def watch() -> None:
        try:
            eventually(lambda: world.faults.ids() == {"node"})
            stays(lambda: world.faults.ids() == {"node"}, 1.8 * TTL)
        except BaseException as error:
            failures.append(error)

    watcher = threading.Thread(target=watch)
    watcher.start()
    asyncio.run(application())
    watcher.join()
    assert failures == []


def test_row_04_slow_acknowledgements_do_not_flap(world: World) -> None:
    registration = world.open().register(one("greeter"), ttl=TTL)
    world.faults.delay(TTL / 5, "register", "renew")
    stays(lambda: registration.state == "active" and world.faults.ids() == {"node"}, 3 * TTL)


def test_row_05_record_that_was_wiped_is_registered_anew(world: World) -> None:
    registration = world.open().register(one("greeter", key="value"), ttl=TTL)
    world.faults.forget()
    eventually(lambda: world.faults.ids() == {"node"}, TTL)
    eventually(lambda: registration.state == "active", TTL)
    assert list(world.faults.store.read(None).values()) == [one("greeter", key="value")]


def test_row_05_record_is_read_back_where_renewals_lie(world: World) -> None:
    world.open().register(one("greeter"), ttl=TTL, interval=0.1)
    world.faults.is_lying = True
    world.faults.forget()
    eventually(lambda: world.faults.ids() == {"node"}, 2 * TTL)


@pytest.mark.parametrize("seconds", [0.2, 0.8])
def test_row_07_late_renewal_does_not_resurrect(world: World, seconds: float) -> None:
    registration = world.open().register(one("greeter"), ttl=TTL, interval=0.1)
    operation = "renew" if world.has_renew else "register"
    world.faults.delay(seconds, operation)
    asked = world.faults.count(operation)
    eventually(lambda: world.faults.count(operation) > asked)
    registration.close()
    closed = time.monotonic()
    eventually(lambda: not world.faults.ids(), 2.5)
    stays(lambda: not world.faults.ids() or time.monotonic() - closed < 1.5 + seconds, 3.0)


def test_row_07_closing_waits_for_the_renewal_under_way(world: World) -> None:
    registration = world.open().register(one("greeter"), ttl=3.0, interval=0.6)
    operation = "renew" if world.has_renew else "register"
    world.faults.delay(0.3, operation)
    asked = world.faults.count(operation)
    eventually(lambda: world.faults.count(operation) > asked)
    registration.close()
    assert not world.faults.ids()
    stays(lambda: not world.faults.ids(), 0.5)


def test_row_07_late_first_registration_does_not_appear_after_all(world: World) -> None:
    registry = world.open(timeout=0.2)
    world.faults.delay(0.6, "register")
    with pytest.raises(RegistryTimeoutError):
        registry.register(one("greeter"), ttl=60)
    world.faults.heal()  # what was sent before still comes late
    eventually(lambda: world.faults.ids() == {"node"}, 2)
    eventually(lambda: not world.faults.ids(), 4)
    stays(lambda: not world.faults.ids(), 0.5)


def test_row_08_predecessor_withdraws_no_successor() -> None:
    with svcreg.open("memory://row-8") as old, svcreg.open("memory://row-8") as new:
        predecessor = old.register(one("greeter"), ttl=TTL, interval=0.1)
        successor = one("greeter", instance="successor")
        new.register(successor, ttl=TTL)
        predecessor.close()
        old.close()
        stays(lambda: list(new.get("greeter")) == [successor], 0.3)


def test_row_12_node_is_listed_only_while_its_check_passes(world: World) -> None:
    is_ready = threading.Event()
    registration = world.open().register(one("greeter"), ttl=TTL, check=is_ready.is_set)
    assert registration.state == "pending"
    stays(lambda: not world.faults.ids(), 0.3)
    is_ready.set()
    eventually(lambda: world.faults.ids() == {"node"}, 2)
    eventually(lambda: registration.state == "active", 0.5)
    is_ready.clear()
    eventually(lambda: not world.faults.ids(), 4)
    eventually(lambda: registration.state == "pending", 0.5)
    is_ready.set()
    eventually(lambda: world.faults.ids() == {"node"}, 2)


def test_row_12_server_that_binds_late_is_listed_late(world: World) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{server.getsockname()[1]}"
        registration = world.open().register(one("greeter"), ttl=TTL, check=health.tcp(address))
        assert registration.state == "pending"
        stays(lambda: not world.faults.ids(), 0.3)
        server.listen()
        eventually(lambda: world.faults.ids() == {"node"}, 2)


def test_row_14_required_registration_fails_at_once_and_leaves_nothing(world: World) -> None:
    registry = world.open()
    world.faults.cut()
    started = time.monotonic()
    with pytest.raises(RegistryUnavailableError, match="register of 'greeter'") as caught:
        registry.register(one("greeter"), ttl=TTL)
    assert time.monotonic() - started < 0.5
    assert (caught.value.operation, caught.value.service) == ("register", "greeter")
    assert caught.value.backend == world.kind
    world.faults.heal()
    stays(lambda: not world.faults.ids(), 0.5)
    assert registry.status().registrations == ()
    registry.register(one("greeter"), ttl=TTL)
    assert world.faults.ids() == {"node"}


def test_row_14_registration_that_is_not_required_is_made_later(world: World) -> None:
    registry = world.open()
    world.faults.cut()
    registration = registry.register(one("greeter"), ttl=TTL, required=False)
    assert registration.state == "pending"
    eventually(lambda: registration.error is not None)
    cut_at = time.monotonic()
    eventually(lambda: time.monotonic() - cut_at > TTL)
    assert world.faults.count("register", since=cut_at) <= 20 * TTL
    world.faults.heal()
    eventually(lambda: world.faults.ids() == {"node"}, TTL)
    eventually(lambda: registration.state == "active", 0.5)


def test_row_14_registration_under_way_can_be_closed_while_the_registry_is_down(
    world: World,
) -> None:
    world.faults.cut()
    registration = world.open().register(one("greeter"), ttl=TTL, required=False)
    started = time.monotonic()
    registration.close()
    assert time.monotonic() - started < 2
    world.faults.heal()
    stays(lambda: not world.faults.ids(), 0.5)


@pytest.mark.parametrize("fault", ["cut", "hang"])
def test_row_13_closing_is_bounded_while_the_registry_is_down(world: World, fault: str) -> None:
    registry = world.open(timeout=0.5)
    registration = registry.register(one("greeter"), ttl=TTL)
    registry.get("greeter")
    getattr(world.faults, fault)()
    started = time.monotonic()
    registration.close()
    registry.close()
    assert time.monotonic() - started < 5
    assert registration.state == "closed"
    world.faults.heal()
    eventually(lambda: not world.faults.ids(), 2 * TTL)


@pytest.mark.parametrize("fault", ["cut", "hang", "heal"])
def test_backend_is_closed_once_whatever_the_registry_does(world: World, fault: str) -> None:
    if not world.has_renew:
        pytest.skip("the other kind has no hook to be called")
    # So long that, hanging, the renewal and the withdrawal together outlast the time for closing.
    seconds = 1.5
    registry = world.open(timeout=seconds)
    registry.register(one("greeter"), ttl=2 * seconds, interval=seconds)
    registry.get("greeter")
    getattr(world.faults, fault)()
    asked = world.faults.count("renew")
    eventually(lambda: world.faults.count("renew") > asked)  # closing meets a renewal
    registry.close()
    assert world.faults.count("close") == 1


def test_two_registries_of_one_process_share_no_fate(world: World) -> None:
    other = World(world.kind)
    with contextlib.closing(other):
        ours = world.open().register(one("greeter"), ttl=TTL)
        theirs = other.open().register(one("greeter"), ttl=TTL)
        world.faults.hang()
        stays(lambda: other.faults.ids() == {"node"} and theirs.state == "active", 2 * TTL)
        assert ours.state == "lost"
        world.faults.heal()
        eventually(lambda: ours.state == "active", TTL)
