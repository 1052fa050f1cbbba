"""`svcreg register`: keep one node listed for as long as the command runs."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterable
from typing import Any

import click
import msgspec

import svcreg
from svcreg import Node, Service, codec, health
from svcreg.cli.errors import FailedError, show_warnings
from svcreg.cli.output import write_json, write_line
from svcreg.cli.settings import Settings, common_options, pass_settings
from svcreg.cli.signals import until_stopped
from svcreg.model import NAME_LIMIT, is_wildcard, split_address

_POLL = 0.1
"""Seconds between looks at the state of the registration, which changes in the background."""

_STYLES = {"pending": "yellow", "active": "green", "lost": "red", "closed": "dim"}


@click.command("register")
@click.argument("name")
@click.option(
    "--address", required=True, metavar="HOST:PORT", help="Where the node can be reached."
)
@click.option(
    "--node-id",
    metavar="ID",
    help="Id of the node within the service.  [default: NAME-HOST-PORT]",
)
@click.option("--version", default="", metavar="VERSION", help="Version of the service.")
@click.option(
    "--metadata",
    multiple=True,
    metavar="KEY=VALUE",
    help="Metadata of the node; may be given several times.",
)
@click.option(
    "--ttl",
    type=float,
    metavar="SECONDS",
    help="How long the node stays listed without renewal.  [default: $MICRO_REGISTER_TTL, else 90]",
)
@click.option(
    "--interval",
    type=float,
    metavar="SECONDS",
    help="Time between renewals.  [default: $MICRO_REGISTER_INTERVAL, else a third of the TTL]",
)
@click.option(
    "--check",
    metavar="CHECK",
    help="List the node only while this passes: tcp:HOST:PORT, http://..., https://... or "
    "grpc:HOST:PORT[/SERVICE].",
)
@click.option(
    "--optional", is_flag=True, help="Keep trying when the registry is away, instead of giving up."
)
@common_options
@pass_settings
def command(
    settings: Settings,
    name: str,
    address: str,
    node_id: str | None,
    version: str,
    metadata: tuple[str, ...],
    ttl: float | None,
    interval: float | None,
    check: str | None,
    optional: bool,
) -> None:
    """Keep a node of the service NAME listed until interrupted.

    Stays in the foreground, renewing, and prints every change of state; JSON is one object per
    line: state, service, timestamp, error. SIGINT, SIGTERM and SIGHUP withdraw the node.
    """
    node = Node(
        default_node_id(name, address) if node_id is None else node_id,
        address,
        parse_metadata(metadata),
    )
    service = Service(name, version, nodes=(node,))
    probe = None if check is None else health.parse(check)
    last: svcreg.Registration | None = None
    with until_stopped(), settings.open() as registry:
        last = registry.register(
            service, ttl=ttl, interval=interval, check=probe, required=not optional
        )
        show_warnings()
        _follow(last, settings)
    if last is not None:
        _write_state("closed", last, settings)


def _follow(registration: svcreg.Registration, settings: Settings) -> None:
    """Print every change of state until interrupted."""
    shown: tuple[str, str] | None = None
    while True:
        state, error = registration.state, str(registration.error or "")
        if (state, error) != shown:
            shown = (state, error)
            _write_state(state, registration, settings)
        if state == "closed":
            raise FailedError(error or "the registration was closed")
        time.sleep(_POLL)


def _write_state(state: str, registration: svcreg.Registration, settings: Settings) -> None:
    service = registration.service
    error = str(registration.error) if registration.error and state != "closed" else None
    now = time.time()
    if settings.is_json:
        line: dict[str, Any] = {
            "state": state,
            "service": msgspec.Raw(codec.encode_service(service)),
            "timestamp": now,
            "error": error,
        }
        write_json(msgspec.json.encode(line))
        return
    clock = time.strftime("%H:%M:%S", time.localtime(now))
    for node in service.nodes:
        parts = [clock, f"{state:<7}", service.name, node.id, node.address, error or ""]
        write_line("  ".join(parts).rstrip(), _STYLES[state])


def default_node_id(name: str, address: str) -> str:
    """Return an id that is the same after a restart, so that no ghost stays behind.

    An address that means "this machine" says nothing about which one, so its name stands in. What
    is too long loses its beginning: the end tells the nodes of a service apart.
    """
    host, port = split_address(address)
    if is_wildcard(host):
        host = socket.gethostname()
    return re.sub(r"[^A-Za-z0-9._~@+]+", "-", f"{name}-{host}-{port}")[-NAME_LIMIT:]


def parse_metadata(pairs: Iterable[str]) -> dict[str, str]:
    """Return `key=value` pairs as a mapping."""
    metadata = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise click.UsageError(f"--metadata {pair!r} is not KEY=VALUE")
        metadata[key] = value
    return metadata
