"""mDNS keeps the contract, with real multicast on the loopback interface.

Everybody on the link shares the store, other tests too; the suite's names are unique.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest

from svcreg import InvalidServiceError
from svcreg.testing import BackendConformance
from svcreg.testing.conformance.base import World, one
from svcreg.testing.facts import Facts
from tests.support.mdns import announcement, sender, text
from tests.support.mdns_gomicro import gomicro_announcement
from tests.support.mdns_versions import VersionedWorld

pytest.importorskip("svcreg_mdns")


class Mdns(BackendConformance):
    ttl = 2.0
    settle = 5.0
    name_limit = 252  # one TXT string holds 255 bytes, of which the key takes three

    @pytest.fixture
    def plant_garbage(self) -> Iterator[Callable[[str], None]]:
        """Announce nonsense in both dialects."""
        with sender() as send:

            def plant(name: str) -> None:
                send(announcement(f"bad-{name}", text(f"s={name}".encode(), b"id=bad", b"d0=bad")))
                send(gomicro_announcement(name, "bad", b"\x03bad"))

            yield plant


# Bursts of one test would drown packets of another, so few of them run at a time.


@pytest.mark.xdist_group("mdns")
class TestMdns(Mdns):
    backend = "mdns://?interfaces=lo"


@pytest.mark.xdist_group("mdns-one-dialect")
class OneDialect(Mdns):
    faces = ("asyncio",)  # what differs from both dialects lies far below the faces
    race_seconds = 1.0


class TestMdnsDnsSd(OneDialect):
    backend = "mdns://?interfaces=lo&dialect=dns-sd"


class TestMdnsGoMicro(OneDialect):
    backend = "mdns://?interfaces=lo&dialect=go-micro"
    ttl = 1.0
    name_limit = 63  # a name without dots is one DNS label

    @pytest.fixture
    def world(
        self,
        request: pytest.FixtureRequest,
        facts: Facts,
        registry_url: str,
        backend_environment: Mapping[str, str],
    ) -> Iterator[World]:
        world = VersionedWorld(self, registry_url, request.param, backend_environment, facts)
        yield world
        world.close()

    def test_name_with_every_allowed_character_is_found(self, world: World) -> None:
        """All but one: Go puts a backslash before an `@`."""
        name = world.name("-aZ0._~:+-")
        service = one(name, f"{name}.1", key="value")
        world.open().register(service)
        world.shows(world.open(), name, [service])
        with pytest.raises(InvalidServiceError, match="'@'"):
            world.open().register(one(f"{name}@", "node"))

    # It opens registries without our world, and what it tests is the face alone.
    test_asyncio_face_serves_one_event_loop_after_another = None  # type: ignore[assignment]
