"""Record what go-micro itself writes: `python -m tests.interop.recording` renews the vectors.

Each service of `vectors/services.json` is registered by go-micro's own packages with a real etcd,
with a real Consul agent, and on a link where nobody else is. What arrives there is kept as it is,
but for what is random: message ids of DNS, and the order of Consul's tags.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.consul import Agent, running_agent
from tests.support.etcd import Etcd, running_etcd
from tests.support.gomicro import GoMicro
from tests.support.gomicro_link import Link, Packet, is_response
from tests.support.gomicro_vectors import FOLDER, Vector, plain_tag, services
from tests.support.namespaces import Host, hosts
from tests.support.servers import eventually

HOST_NAME = "vectors"  # stands in every SRV record
TTL = 30.0  # seconds
REFUSAL = 80  # characters of an error that are kept


def record_etcd(etcd: Etcd, folder: Path) -> list[Vector]:
    """Return key and value of each node."""
    found = []
    with GoMicro(folder / "go.log", "etcd", etcd.endpoint) as go:
        for service in services():
            go.call("register", service=service)
            for key, kv in sorted(etcd.items(f"/micro/registry/{service['name']}/").items()):
                found.append({"service": service, "key": key, "value": kv["value"].decode()})
            go.call("deregister", service=service)
    return found


def record_consul(agent: Agent, folder: Path) -> list[Vector]:
    """Return the body of each registration, or what go-micro said instead."""
    found: list[Vector] = []
    bodies: list[Any] = []
    with listening(agent, bodies) as address, GoMicro(folder / "go.log", "consul", address) as go:
        for service in services():
            bodies.clear()
            answer = go.ask("register", service=service, ttl=TTL)
            if "error" in answer:
                found.append({"service": service, "refused": answer["error"][:REFUSAL]})
                continue
            (body,) = bodies
            body["Tags"].sort(key=lambda tag: plain_tag(tag) if tag[0] == "t" else "~")
            found.append({"service": service, "registration": body})
            go.call("deregister", service=service)
    return found


def record_mdns(host: Host, folder: Path) -> list[Vector]:
    """Return the packets of each registration: probe, announcement, answers, goodbye."""
    found: list[Vector] = []
    peer = [*host.prefix, *named(HOST_NAME)]
    with Link(folder / "link.log", host.prefix) as link:
        for service in services():
            with GoMicro(folder / "go.log", "mdns", prefix=peer) as go:
                answer = go.ask("register", service=service)
                if "error" in answer:
                    found.append({"service": service, "refused": answer["error"][:REFUSAL]})
                    continue
                found.append({"service": service, "packets": _packets(go, link, service)})
    return found


def named(host_name: str) -> list[str]:
    """Return what to put before a command so that its host has another name."""
    script = f'echo {host_name} > /proc/sys/kernel/hostname; exec "$@"'
    return ["unshare", "--uts", "sh", "-c", script, "sh"]


def _packets(go: GoMicro, link: Link, service: dict[str, Any]) -> dict[str, list[str]]:
    count = len(service["nodes"])
    # What is sent again, and again, makes no difference: sets are waited for.
    found = {
        "announcements": _gather(link, count, lambda p: p["to"] == "group" and is_response(p)),
        "probes": _gather(link, count, lambda p: p["to"] == "group" and not is_response(p)),
    }
    link.packets.clear()
    link.ask(f"{service['name']}.micro.")
    found["answers"] = _gather(link, count, lambda p: p["to"] == "asker")
    link.packets.clear()
    link.ask("_services.micro.")
    found["listed"] = _gather(link, 1, lambda p: p["to"] == "asker")
    go.call("deregister", service=service)
    known = set(found["announcements"])
    found["goodbyes"] = _gather(
        link,
        count,
        lambda p: p["to"] == "group" and is_response(p) and _without_id(p) not in known,
    )
    link.packets.clear()
    return found


def _without_id(packet: Packet) -> str:
    text: str = packet["packet"]
    return "0000" + text[4:]


def _gather(link: Link, count: int, wanted: Callable[[Packet], bool]) -> list[str]:
    def find() -> set[str]:
        return {_without_id(packet) for packet in list(link.packets) if wanted(packet)}

    eventually(lambda: len(find()) >= count, 10, f"{count} packets")
    return sorted(find())


@contextlib.contextmanager
def listening(agent: Agent, bodies: list[Any]) -> Iterator[str]:
    """Stand between a program and an agent, and keep what is registered."""

    class Handler(BaseHTTPRequestHandler):
        def _forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path.startswith("/v1/agent/service/register"):
                bodies.append(json.loads(body))
            connection = http.client.HTTPConnection(agent.address, timeout=10)
            connection.request(self.command, self.path, body)
            answer = connection.getresponse()
            text = answer.read()
            connection.close()
            self.send_response(answer.status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_PUT = _forward  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def link_up(host: Host) -> None:
    """Let go-micro find itself on a host that has a loopback only."""
    host.ip("route", "add", "224.0.0.0/4", "dev", "lo")


def write(name: str, recorded: Sequence[Vector]) -> None:
    text = json.dumps(recorded, indent=1, ensure_ascii=True)
    (FOLDER / f"{name}.json").write_text(text + "\n")


def main() -> None:
    with tempfile.TemporaryDirectory() as name, hosts(1) as (host,):
        folder = Path(name)
        with running_etcd(folder / "etcd") as etcd:
            write("etcd", record_etcd(etcd, folder))
        with running_agent(folder / "consul") as agent:
            write("consul", record_consul(agent, folder))
        link_up(host)
        write("mdns", record_mdns(host, folder))


if __name__ == "__main__":
    main()
