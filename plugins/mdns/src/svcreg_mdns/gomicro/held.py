"""The nodes that this program announces as go-micro does; no I/O."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from svcreg import Node, Service
from svcreg_mdns.gomicro import packets, records
from svcreg_mdns.gomicro.packets import AAAA, ANY, LABEL_LIMIT, PTR, SRV, TXT, A, Question, Record
from svcreg_mdns.gomicro.records import Names, Written

MULTICAST_SECONDS = 1.0
"""A record is multicast at most once in this time, whoever asks (RFC 6762 section 6)."""

_INSTANCE_KINDS = frozenset({ANY, SRV, TXT, A, AAAA})


@dataclass(slots=True, eq=False)
class Held:
    """One node; `service` holds no other, `ttl` is in seconds.

    `heard` is set once our announcement has come back to us.
    """

    service: Service
    node: Node
    written: Written
    ttl: int
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    multicast_at: float = -MULTICAST_SECONDS
    defended_at: float = -MULTICAST_SECONDS
    answers: dict[tuple[str, int], bytes] = field(default_factory=dict)

    @property
    def may_multicast(self) -> bool:
        """Tell whether the last announcement is long enough ago."""
        return time.monotonic() - self.multicast_at >= MULTICAST_SECONDS

    def announcement(self, pointer_from: str = "") -> bytes:
        """Return the packet that tells everybody of the node."""
        self.multicast_at = time.monotonic()
        return self.written.announcement(self.ttl, pointer_from=pointer_from)

    def goodbye(self) -> bytes:
        """Return the packet that takes the node back."""
        return self.written.announcement(0)

    def answer(self, question: Question, number: int) -> bytes:
        """Return the answer to a question; made once for equal questions."""
        key = question.name, question.kind
        if key not in self.answers:
            self.answers[key] = self.written.answer(Question(*key), self.ttl)
        return packets.readdress(self.answers[key], question, number)


class Holdings:
    """All nodes, found by service, by id and by what is asked. Loop only.

    Args:
        names: Those of the domain.
        is_alone: There is no other dialect; otherwise hosts tell that there is.
    """

    def __init__(self, names: Names, *, is_alone: bool) -> None:
        self._names = names
        self._is_alone = is_alone
        self._held: dict[str, dict[str, Held]] = {}  # by service and node id
        self._instances: dict[str, list[Held]] = {}
        self.versionless: set[str] = set()
        """Services left to the other dialect because they have no version."""

    def __iter__(self) -> Iterator[Held]:
        return (held for nodes in list(self._held.values()) for held in list(nodes.values()))

    def find(self, service: str, node_id: str) -> Held | None:
        """Return a node."""
        return self._held.get(service, {}).get(node_id)

    def find_all(self, service: Service) -> list[Held]:
        """Return those nodes of a service that are held."""
        found = (self.find(service.name, node.id) for node in service.nodes)
        return [held for held in found if held is not None]

    def named(self, instance: str) -> list[Held]:
        """Return the nodes of one name; where names have dots there may be several."""
        return list(self._instances.get(instance, ()))

    def add(self, held: Held) -> None:
        """Take in a node, in place of the one with the same id."""
        if (before := self.find(held.service.name, held.node.id)) is not None:
            self.remove(before)
        self._held.setdefault(held.service.name, {})[held.node.id] = held
        self._instances.setdefault(held.written.instance, []).append(held)

    def remove(self, held: Held) -> None:
        """Let go of a node."""
        nodes = self._held[held.service.name]
        del nodes[held.node.id]
        if not nodes:
            del self._held[held.service.name]
        same_name = self._instances[held.written.instance]
        same_name.remove(held)
        if not same_name:
            del self._instances[held.written.instance]

    def asked_for(self, question: Question) -> Iterable[Held]:
        """Return the nodes in the answer to a question, as in go-micro's zone.go.

        To a PTR question for a node there is none: that is how go-micro's servers probe for their
        own names, from port 5353.
        """
        if question.kind in _INSTANCE_KINDS and question.name in self._instances:
            return self._instances[question.name]
        service = self._names.asked(question.name)
        if question.kind in (PTR, ANY) and service in self._held:
            return self._held[service].values()
        return ()

    def listings(self) -> Iterator[list[Record]]:
        """Iterate over the services in the list of all, each as its records."""
        for service in self._held:
            name = self._names.listing(service)
            yield records.listing_records(self._names, name, self.host(name))

    def host(self, name: str) -> str:
        """Return the host in the records of a name."""
        return _host_name() if self._is_alone else self._names.twin_host(name)


def _host_name() -> str:
    """Return this machine's name as go-micro writes it, if DNS can."""
    name = socket.gethostname()
    is_fit = name.isascii() and all(1 <= len(part) <= LABEL_LIMIT for part in name.split("."))
    return f"{name}." if is_fit else "localhost."
