"""Decoding go-micro's service JSON: msgspec structs against json and frozen dataclasses.

10,000 records of one node each, as an etcd registry of that size holds them. Time is the best of
five; memory is what the decoded records keep allocated, by tracemalloc. The dataclasses are built
the way a program without msgspec would, and check nothing.
"""

from __future__ import annotations

import gc
import json
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from svcreg import Node, Service
from svcreg.codec import decode_service, encode_service

RECORDS = 10_000
REPEATS = 5


@dataclass(frozen=True)
class PlainNode:
    id: str
    address: str
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PlainService:
    name: str
    version: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    endpoints: tuple[Any, ...] = ()
    nodes: tuple[PlainNode, ...] = ()


def decode_plain(data: bytes) -> PlainService:
    raw = json.loads(data)
    nodes = tuple(
        PlainNode(node["id"], node["address"], node["metadata"] or {}) for node in raw["nodes"]
    )
    return PlainService(raw["name"], raw["version"], raw["metadata"] or {}, (), nodes)


decode_struct = msgspec.json.Decoder(Service).decode


def records() -> list[bytes]:
    return [
        encode_service(
            Service(
                f"service-{number // 10}",
                version="1.2.0",
                nodes=[
                    Node(
                        f"service-{number // 10}-{number}",
                        f"10.0.{number // 250}.{number % 250}:8080",
                        metadata={"zone": "z1", "protocol": "grpc", "weight": "10"},
                    )
                ],
            )
        )
        for number in range(RECORDS)
    ]


def seconds(decode: Callable[[bytes], object], data: list[bytes]) -> float:
    best = float("inf")
    for _ in range(REPEATS):
        gc.collect()
        start = time.perf_counter()
        kept = [decode(record) for record in data]
        best = min(best, time.perf_counter() - start)
        del kept
    return best


def bytes_each(decode: Callable[[bytes], object], data: list[bytes]) -> float:
    gc.collect()
    tracemalloc.start()
    kept = [decode(record) for record in data]
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return size / len(kept)


def main() -> None:
    data = records()
    assert decode_service(data[0]) == decode_struct(data[0])
    ways: dict[str, Callable[[bytes], object]] = {
        "json + dataclasses": decode_plain,
        "msgspec, straight into the model": decode_struct,
        "svcreg.codec.decode_service": decode_service,
    }
    base_time, base_size = seconds(decode_plain, data), bytes_each(decode_plain, data)
    for name, decode in ways.items():
        taken, size = seconds(decode, data), bytes_each(decode, data)
        print(
            f"{name:34} {taken * 1e3:6.1f} ms ({taken / base_time:.2f} x)"
            f"  {size:6.0f} bytes a record ({size / base_size:.2f} x)"
        )


if __name__ == "__main__":
    main()
