"""The Python side of the interop tests: the calls of the go-micro program, made with svcreg.

Takes the same JSON lines as `tests/interop/peer`, as far as registries are concerned; which one it
is, MICRO_REGISTRY says. The end of its input makes it withdraw what it has registered.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

import msgspec

import svcreg
from svcreg import Registration, Registry, Service, codec

_lock = threading.Lock()


def say(**fields: Any) -> None:
    line = msgspec.json.encode({**fields, "at": time.time()})
    with _lock:
        sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()


def wire(*services: Service) -> msgspec.Raw:
    return msgspec.Raw(codec.encode_services(services))


class Peer:
    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.held: dict[str, Registration] = {}  # by the id of their first node

    def register(self, service: Any, ttl: float, interval: float = 0) -> None:
        made = codec.decode_service(json.dumps(service))
        key = made.nodes[0].id
        if key in self.held:
            self.held[key].update(
                version=made.version,
                endpoints=made.endpoints,
                nodes=made.nodes,
                service_metadata=made.metadata,
            )
        else:
            self.held[key] = self.registry.register(made, ttl=ttl, interval=interval or None)

    def deregister(self, service: Any) -> None:
        self.held.pop(service["nodes"][0]["id"]).close()

    def get(self, name: str) -> object:
        return wire(*self.registry.get(name))

    def list(self) -> object:
        return [{"name": name} for name in self.registry.list()]

    def select(self, name: str) -> object:
        return msgspec.Raw(codec.encode_node(self.registry.select(name)))

    def watch(self, name: str) -> None:
        threading.Thread(target=self._watch, args=(name,), daemon=True).start()

    def _watch(self, name: str) -> None:
        with self.registry.watch(name or None) as events:
            for event in events:
                service = msgspec.Raw(codec.encode_service(event.service))
                say(event=event.action, watch=name, service=service)


def main() -> None:
    with svcreg.open() as registry:
        peer = Peer(registry)
        say(event="ready")
        for line in sys.stdin:
            request = json.loads(line)
            try:
                result = getattr(peer, request.pop("call"))(**request)
            except Exception as error:
                say(error=f"{type(error).__name__}: {error}")
            else:
                say(result=result)


if __name__ == "__main__":
    main()
