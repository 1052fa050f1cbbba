"""go-micro's mDNS packets: what one costs to pass over, to read and to answer with.

A node with four pairs of metadata and one endpoint, in the packet that answers a question. Times
are the best of five, per packet.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from svcreg import Endpoint, Node, Service, Value
from svcreg_mdns.gomicro import packets, records
from svcreg_mdns.gomicro.packets import PTR, Question
from svcreg_mdns.gomicro.records import Names

ROUNDS = 5_000
REPEATS = 5
METADATA = {"zone": "z1", "protocol": "grpc", "server": "grpc", "transport": "grpc"}


def microseconds(work: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(REPEATS):
        began = time.perf_counter()
        for _ in range(ROUNDS):
            work()
        best = min(best, time.perf_counter() - began)
    return best / ROUNDS * 1e6


def main() -> None:
    names = Names("micro")
    hello = Endpoint("Greeter.Hello", Value("Request", "Request"), Value("Response", "Response"))
    node = Node("greeter-1", "10.0.0.5:8080", METADATA)
    service = Service("greeter", "1.0.0", endpoints=[hello], nodes=[node])
    written = records.encode(service, node, names, "host.")
    question = Question(names.service("greeter"), PTR)
    answer = written.answer(question, 90)
    foreign = answer.replace(names.marker, b"\x05local\0")
    (seen,) = records.nodes_in(packets.decode(answer))

    measured = {
        "pass over a packet of another domain": lambda: names.marker in foreign,
        "read a packet": lambda: list(records.nodes_in(packets.decode(answer))),
        "read a node's text, once per change": lambda: records.decode(seen, names),
        "address a known answer to its asker": lambda: packets.readdress(answer, question, 1),
        "write a node's records and the answer": lambda: records.encode(
            service, node, names, "host."
        ).answer(question, 90),
    }
    print(f"a packet of {len(answer)} bytes")
    for what, work in measured.items():
        print(f"{what:40} {microseconds(work):8.2f} us")


if __name__ == "__main__":
    main()
