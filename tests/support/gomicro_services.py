"""What the interop tests register, and what they see of it."""

from __future__ import annotations

from itertools import groupby

from tests.support.gomicro import Message, Peer

TTL = 2.0  # seconds
GRACE = 2.0  # seconds: etcd looks for expired leases now and then, and so does Consul
ENDPOINT = {
    "name": "Greeter.Hello",
    "metadata": {"path": "/<hello>?a&b"},
    "request": {
        "name": "HelloRequest",
        "type": "HelloRequest",
        "values": [{"name": "name", "type": "string", "values": []}],
    },
    "response": {"name": "HelloResponse", "type": "HelloResponse", "values": []},
}


def service(name: str, *node_ids: str, version: str = "1.0.0", **metadata: str) -> Message:
    """Return a service with an address of its own for each node."""
    return {
        "name": name,
        "version": version,
        "metadata": {},
        "endpoints": [ENDPOINT],
        "nodes": [
            {"id": node_id, "address": f"10.0.0.5:{8000 + number}", "metadata": metadata}
            for number, node_id in enumerate(node_ids, start=1)
        ],
    }


def register(peer: Peer, record: Message, ttl: float = TTL) -> None:
    peer.call("register", service=record, ttl=ttl, interval=ttl / 3)


def seen(reader: Peer, name: str) -> list[tuple[str, str, str]]:
    """Return what a watch saw: actions, each with the id and the step of a node.

    What comes twice in a row counts once: go-micro says again what it has said when Consul's index
    has moved, and when a node is announced again over mDNS.
    """
    events = [event for event in reader.events if event.get("watch") == name]
    steps = [
        (event["event"], node["id"], (node["metadata"] or {}).get("step", ""))
        for event in events
        for node in event["service"]["nodes"] or ()
    ]
    return [step for step, _ in groupby(steps)]
