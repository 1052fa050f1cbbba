"""Everything that touches zeroconf: sockets, announcements, goodbyes and questions.

Only documented names of zeroconf are used, with one exception that is marked. All of it runs on
the registry's event loop and nowhere else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from ipaddress import ip_address
from typing import Any

from zeroconf import (
    DNSQuestionType,
    Error,
    RecordUpdate,
    RecordUpdateListener,
    ServiceInfo,
    Zeroconf,
)
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from svcreg.errors import RegistryUnavailableError
from svcreg_mdns.interfaces import (
    Interface,
    for_asking,
    for_multicast,
    join_names,
    port_taken,
    restrict_to_interfaces,
)
from svcreg_mdns.records import SERVICE_TYPE, Announcement
from svcreg_mdns.sightings import Packet

SWEEP_MIN_SECONDS = 0.25
"""How long the first question waits for answers: zeroconf asks after 20 to 120 ms, and whoever
answers may take another 20 to 120 ms (RFC 6762 sections 5.2 and 6)."""

SWEEP_QUIET_SECONDS = 0.1
"""The first question is over when nothing new has come for this long ..."""

SWEEP_MAX_SECONDS = 1.0
"""... and in any case after this, so that a busy link cannot hold up the first read."""

SWEEP_STEP_SECONDS = 0.02

GOODBYE_SECONDS = 0.3
"""zeroconf sends a goodbye at 0, 125 and 250 ms."""

ASK_SECONDS = 0.7
"""How long one instance is asked for: zeroconf sends the question at 0 and at 220 to 320 ms."""

_TYPE_A, _TYPE_PTR, _TYPE_TXT = 1, 12, 16  # RFC 1035 section 3.2.2
_TYPE_AAAA = 28  # RFC 3596 section 2.1
_TYPE_SRV = 33  # RFC 2782

_log = logging.getLogger("svcreg.mdns")


class Link:
    """The sockets on the chosen interfaces, shared by all that one registry does.

    Args:
        on_packet: Given the records of every response that concerns us, our own included.
    """

    def __init__(self, on_packet: Callable[[Packet], None]) -> None:
        self._listener = _Listener(on_packet)
        self._on_packet = on_packet
        self._interfaces: tuple[Interface, ...] = ()
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._tasks: set[asyncio.Future[Any]] = set()
        self._goodbyes: set[asyncio.Future[Any]] = set()

    @property
    def interface_names(self) -> str:
        """The interfaces in use, for messages."""
        return join_names(self._interfaces)

    async def open(self, interfaces: tuple[Interface, ...]) -> None:
        """Open the sockets.

        Raises:
            RegistryUnavailableError: Port 5353 cannot be shared.
        """
        self._interfaces = interfaces
        try:
            self._zeroconf = AsyncZeroconf(interfaces=for_multicast(self._interfaces))
            await self._zeroconf.zeroconf.async_wait_for_start()
        except (OSError, RuntimeError, Error) as error:
            await self.close()
            raise port_taken(interfaces, error) from error
        _hear_own_interfaces_only(self._zeroconf.zeroconf)
        self._zeroconf.zeroconf.async_add_listener(self._listener, None)

    async def close(self) -> None:
        """Send goodbyes for everything announced and release the sockets; 0.6 s at most."""
        if self._goodbyes:  # each is sent three times, as any packet may be lost
            await asyncio.wait(self._goodbyes, timeout=GOODBYE_SECONDS)
        for task in list(self._tasks):
            task.cancel()
        if self._browser is not None:
            await self._browser.async_cancel()
            self._browser = None
        if self._zeroconf is not None:
            zeroconf, self._zeroconf = self._zeroconf, None
            await zeroconf.async_close()

    async def use(self, interfaces: tuple[Interface, ...]) -> None:
        """Use these interfaces from now on; what is announced is announced on new ones."""
        self._interfaces = interfaces
        # Even if nothing has changed: an IPv6 address can be listed before it is usable.
        await self._running.async_update_interfaces(for_multicast(interfaces))
        _hear_own_interfaces_only(self._running.zeroconf)

    async def announce(self, info: ServiceInfo, *, anew: bool) -> asyncio.Future[Any]:
        """Announce a node three times within half a second; return that as a task.

        Cancel the task before announcing or withdrawing something else under the same name.
        """
        if anew:
            sending = await self._running.async_register_service(info, cooperating_responders=True)
        else:
            sending = await self._running.async_update_service(info)
        return await self._start(sending)

    def repeat(self, info: ServiceInfo) -> None:
        """Announce a node once more, in a single packet; how its TTL is extended."""
        zeroconf = self._running.zeroconf
        zeroconf.async_send(zeroconf.generate_service_broadcast(info, None))

    async def withdraw(self, info: ServiceInfo) -> None:
        """Stop answering for a node and say goodbye; the first packet is out on return."""
        task = await self._start(await self._running.async_unregister_service(info))
        self._goodbyes.add(task)
        task.add_done_callback(self._goodbyes.discard)

    async def yield_to_other(self, info: ServiceInfo) -> None:
        """Stop answering for a node without a goodbye, which somebody else now announces."""
        asyncio.ensure_future(await self._running.async_unregister_service(info)).cancel()

    def say_goodbye(self, info: ServiceInfo) -> None:
        """Say goodbye for a node, which need not be ours, but not for its host."""
        zeroconf = self._running.zeroconf
        zeroconf.async_send(zeroconf.generate_service_broadcast(info, 0, broadcast_addresses=False))

    def browse(self) -> None:
        """Keep asking for instances.

        The questions are multicast, for a unicast answer to the shared port 5353 may reach another
        program.
        """
        if self._browser is None:
            self._browser = AsyncServiceBrowser(
                self._running.zeroconf,
                SERVICE_TYPE,
                handlers=[_ignore],
                question_type=DNSQuestionType.QM,
            )

    async def sweep(self) -> None:
        """Ask who is there, from a port of our own, and wait until answers cease to come."""
        loop = asyncio.get_running_loop()
        begin = last = loop.time()
        heard: set[str] = set()

        def hear(packet: Packet) -> None:
            nonlocal last
            if new := packet.instances() - heard:
                heard.update(new)
                last = loop.time()
            self._on_packet(packet)

        asking = AsyncZeroconf(interfaces=for_asking(self._interfaces), unicast=True)
        try:
            await asking.zeroconf.async_wait_for_start()
            asking.zeroconf.async_add_listener(_Listener(hear), None)
            AsyncServiceBrowser(
                asking.zeroconf,
                SERVICE_TYPE,
                handlers=[_ignore],
                question_type=DNSQuestionType.QU,
            )
            while loop.time() < begin + SWEEP_MAX_SECONDS:
                # In small steps: a process that was not given the CPU finds answers waiting.
                await asyncio.sleep(SWEEP_STEP_SECONDS)
                now = loop.time()
                if now > begin + SWEEP_MIN_SECONDS and now > last + SWEEP_QUIET_SECONDS:
                    return
        finally:
            await asking.async_close()

    async def ask(self, name: str) -> Packet | None:
        """Ask for one instance; return what is known of it then, or None.

        What comes from the network also passes `on_packet`, with its real TTLs; the return value
        may come from zeroconf's cache, so its TTL is short, to be asked about again soon.
        """
        try:
            info = AsyncServiceInfo(SERVICE_TYPE, name)
            complete = await info.async_request(
                self._running.zeroconf, ASK_SECONDS * 1000, DNSQuestionType.QM
            )
        except Error:
            return None  # not a name that can be asked for
        if not complete or not info.server or not info.port:
            return None
        host = info.server.lower()
        return Packet(
            services={name: (host, info.port, 1)},
            texts={name: [(info.text, 1)]},
            addresses={host: [(address, 1, False) for address in info.parsed_scoped_addresses()]},
        )

    @property
    def _running(self) -> AsyncZeroconf:
        if self._zeroconf is None:
            raise RegistryUnavailableError("mdns: the network interface is gone", backend="mdns")
        return self._zeroconf

    async def _start(self, sending: Awaitable[Any]) -> asyncio.Future[Any]:
        """Let a task of zeroconf's send its first packet, and keep it for `close`."""
        task: asyncio.Future[Any] = asyncio.ensure_future(sending)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.sleep(0)
        return task


def service_info(announcement: Announcement, ttl: float) -> ServiceInfo:
    """Return an announcement as zeroconf takes it.

    zeroconf keeps the TTL of SRV, TXT and addresses as announced, and raises that of PTR.
    """
    seconds = max(1, -int(-ttl // 1))
    return AsyncServiceInfo(
        SERVICE_TYPE,
        announcement.instance,
        port=announcement.port,
        properties=announcement.text,
        server=announcement.host,
        host_ttl=seconds,
        other_ttl=seconds,
        parsed_addresses=[announcement.address],
    )


class _Listener(RecordUpdateListener):
    """Turns zeroconf's record updates into packets."""

    def __init__(self, on_packet: Callable[[Packet], None]) -> None:
        self._on_packet = on_packet

    def async_update_records(
        self, zc: Zeroconf, now: float, records: Iterable[RecordUpdate]
    ) -> None:
        packet = Packet()
        for update in records:
            record = update.new
            if record.ttl == 0 or not record.is_expired(now):  # else zeroconf's cache is tidying up
                _add(packet, record)
        if packet.pointers or packet.services or packet.texts or packet.addresses:
            try:
                self._on_packet(packet)
            except Exception:  # zeroconf would drop the rest of its work for this packet
                _log.exception("a packet could not be handled")

    def async_update_records_complete(self) -> None:
        """Nothing: what was heard is kept on our side."""


def _add(packet: Packet, record: Any) -> None:
    """Add one record to a packet; records of other service types are left out."""
    name = record.name.lower()
    kind = record.type
    if kind == _TYPE_PTR and name == SERVICE_TYPE:
        alias = record.alias.lower()
        if _is_instance(alias):
            packet.pointers[alias] = record.ttl
    elif kind == _TYPE_SRV and _is_instance(name):
        packet.services[name] = (record.server.lower(), record.port, record.ttl)
    elif kind == _TYPE_TXT and _is_instance(name):
        packet.texts.setdefault(name, []).append((record.text, record.ttl))
    elif kind in (_TYPE_A, _TYPE_AAAA):
        address = ip_address(record.address)
        zone = f"%{record.scope_id}" if record.scope_id and address.is_link_local else ""
        entry = (f"{address}{zone}", record.ttl, record.unique)
        packet.addresses.setdefault(name, []).append(entry)


def _is_instance(name: str) -> bool:
    return name.endswith(f".{SERVICE_TYPE}")


def _ignore(**_: object) -> None:
    """Stand in for a browser's handler: the listener hears more, and earlier."""


def _hear_own_interfaces_only(zeroconf: Zeroconf) -> None:
    """Keep out packets of interfaces that were not chosen.

    zeroconf does not see to it and has no documented way to its sockets: `engine.readers` is the
    exception to using documented names only. Should it go, the registry hears more than it was
    asked to, and `test_only_chosen_interfaces_are_heard` fails.
    """
    for reader in getattr(getattr(zeroconf, "engine", None), "readers", ()):
        restrict_to_interfaces(reader.transport.get_extra_info("socket"))
