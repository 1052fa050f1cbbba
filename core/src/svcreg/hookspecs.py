"""The whole agreement between core and a backend.

A backend is one object (or a plain module) whose hooks are marked with `hookimpl`. A hook is

- a `def`, which is called on a thread of its own and may block, or
- an `async def`, which runs on the registry's private event loop and must never block it.

Which one it is, is decided once, when the backend loads. An implementation names only the
arguments it uses. It speaks its protocol and raises; core owns heartbeats, retries, backoff,
reconnecting and caching. Errors are those of `svcreg.errors`; any `OSError` counts as
`RegistryUnavailableError` and any `TimeoutError` as `RegistryTimeoutError`.

Besides its hooks a backend may have these attributes:

- `capabilities: frozenset[str]`, from `CAPABILITIES`: what it can do and is tested for. Without it
  nothing is claimed.
- `default_address: str`: what is used where neither argument, URL nor environment names one. The
  instance may set its own, as the environment of the server's own tools has it. Core asks for
  the route to it when it chooses an address to advertise.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from types import MappingProxyType

import msgspec
import pluggy

from svcreg.model import Service, _freeze_sequence

PROJECT = "svcreg"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

CAPABILITIES: Mapping[str, str] = MappingProxyType(
    {
        "ttl": "a node whose owner died goes within its TTL and a stated grace",
        "push": "changes arrive without polling",
        "watch-all": "svcreg_watch(None) watches every service",
        "fencing": "a predecessor cannot withdraw its successor",
        "endpoints": "endpoints and service metadata survive the round trip",
        "cross-process": "other processes see what this one registers",
    }
)

REQUIRED_HOOKS = (
    "svcreg_register",
    "svcreg_deregister",
    "svcreg_get",
    "svcreg_list",
    "svcreg_watch",
)


class Snapshot(msgspec.Struct, frozen=True):
    """Every node of what is watched at one moment, and the server's revision where it has one."""

    services: Sequence[Service] = ()
    revision: str | None = None

    def __post_init__(self) -> None:
        _freeze_sequence(self, "services", self.services)


class Delta(msgspec.Struct, frozen=True):
    """What changed since the item before it; each service holds only the nodes concerned.

    A service in `deletes` needs only its name and the ids of its nodes.
    """

    upserts: Sequence[Service] = ()
    deletes: Sequence[Service] = ()
    revision: str | None = None

    def __post_init__(self) -> None:
        _freeze_sequence(self, "upserts", self.upserts)
        _freeze_sequence(self, "deletes", self.deletes)


class BackendSpec:
    """The hooks of a backend. Those marked optional may be left out; the others must be there."""

    @hookspec(firstresult=True)
    def svcreg_open(self, config: object) -> None:
        """Prepare to serve; optional. Called before any other hook; connect lazily all the same."""

    @hookspec(firstresult=True)
    def svcreg_close(self) -> None:
        """Release sockets, threads and files; optional. Called once, as the last hook."""

    @hookspec(firstresult=True)
    def svcreg_register(self, service: Service, ttl: float) -> None:
        """Create or replace the nodes of `service`; return when the registry has acknowledged.

        Repeating it is safe. The nodes stay listed for `ttl` seconds after the last
        acknowledged register or renew; a backend that rounds rounds up.
        """

    @hookspec(firstresult=True)
    def svcreg_deregister(self, service: Service) -> None:
        """Withdraw the nodes of `service`; return when they are no longer listed.

        An unknown node is success. What this backend instance registered itself is compared by
        owner where the backend can (capability `fencing`): a node that somebody else has
        registered since stays. Anything else is withdrawn whoever registered it.
        """

    @hookspec(firstresult=True)
    def svcreg_get(self, name: str) -> Sequence[Service]:
        """Return every node of a service, grouped by version; an unknown service is empty."""
        raise NotImplementedError  # pluggy calls implementations only, here and below

    @hookspec(firstresult=True)
    def svcreg_list(self) -> Sequence[str]:
        """Return the names of all services."""
        raise NotImplementedError

    @hookspec(firstresult=True)
    def svcreg_watch(
        self, name: str | None, stop: threading.Event
    ) -> AsyncIterator[Snapshot | Delta] | Iterator[Snapshot | Delta]:
        """Yield a `Snapshot` at once, even an empty one, then a `Snapshot` or `Delta` per change.

        Written as a generator (`def`) or an asynchronous generator (`async def`). It covers one
        connection and raises when that is lost: it never sleeps and retries. `name=None` is
        every service (capability `watch-all`). An `async def` is cancelled when nobody
        needs it any more; a `def` looks at `stop` at least once a second and returns when it is
        set.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def svcreg_drain(self, service: Service) -> None:
        """Hide the nodes of `service` from readers before they are withdrawn; optional.

        For registries where operators are to see that a node leaves on purpose, such as Consul's
        maintenance. `svcreg_deregister` follows after a while, and no renewal in between.
        Without this hook core withdraws at once.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def svcreg_renew(self, services: Sequence[Service], ttl: float) -> Sequence[Service]:
        """Extend the TTL of all these registrations at once; optional.

        Returns those that the registry no longer knows, empty when all are well; raises when it
        could not ask. A node that somebody else has registered since is well, and is left alone.
        Without this hook core repeats `svcreg_register` for each.
        """
        raise NotImplementedError


class ObserverSpec:
    """The hook of an observer, which an `svcreg.extensions` entry point adds."""

    @hookspec
    def svcreg_observe(
        self,
        operation: str,
        backend: str,
        service: str | None,
        seconds: float,
        error: BaseException | None,
    ) -> None:
        """Be told of every backend call, and of every change of a registration's state.

        Called on the registry's private event loop, so it must not block. `operation` is that of
        the hook (`register`, `renew`, ...) with `seconds` as its duration, or `state:active`,
        `state:lost` and so on with the seconds spent in the state before.
        """
