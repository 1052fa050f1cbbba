"""Hosts that are only a network namespace: Linux, root, and `ip` from iproute2."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator

from tests.support.servers import PROBE_SECONDS, missing


def require_namespaces() -> None:
    """Skip or fail the test where network namespaces cannot be made."""
    if not sys.platform.startswith("linux") or not shutil.which("ip"):
        missing("network namespaces need Linux and iproute2", "install iproute2")
    if os.geteuid() != 0:
        missing("network namespaces need root", "run the tests as root")
    name = _unique()
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        missing("network namespaces are not permitted here", made.stderr.strip())
    subprocess.run(["ip", "netns", "delete", name], check=True)


class Host:
    """One namespace, with loopback up."""

    def __init__(self) -> None:
        self.name = _unique()
        _ip("netns", "add", self.name)
        self.ip("link", "set", "lo", "up")

    @property
    def prefix(self) -> list[str]:
        """What to put before a command so that it runs on this host."""
        return ["ip", "netns", "exec", self.name]

    def ip(self, *arguments: str) -> str:
        """Run `ip` on this host."""
        return _ip("-n", self.name, *arguments)

    def delete(self) -> None:
        """Take the host away; its interfaces go with it."""
        _ip("netns", "delete", self.name)


@contextlib.contextmanager
def hosts(count: int) -> Iterator[list[Host]]:
    """Make some hosts, not connected to each other."""
    with contextlib.ExitStack() as stack:
        made = []
        for _ in range(count):
            host = Host()
            stack.callback(host.delete)
            made.append(host)
        yield made


def connect(one: Host, other: Host, network: int = 0, *, ipv4: bool = True) -> None:
    """Join two hosts by a cable: `link<network>` on both, 10.77.<network>.1 and .2.

    Without IPv4 they have link-local IPv6 addresses only; returns once those are usable.
    """
    device = f"link{network}"
    _ip(
        *("link", "add", device, "netns", one.name, "type", "veth"),
        *("peer", "name", device, "netns", other.name),
    )
    for number, host in enumerate((one, other), start=1):
        if ipv4:
            host.ip("address", "add", f"10.77.{network}.{number}/24", "dev", device)
        host.ip("link", "set", device, "up")
    if not ipv4:
        deadline = time.monotonic() + 10
        for host in (one, other):
            while "scope link" not in (shown := _addresses(host, device)) or "tentative" in shown:
                assert time.monotonic() < deadline, "no link-local IPv6 address"
                time.sleep(PROBE_SECONDS)


def _addresses(host: Host, device: str) -> str:
    return host.ip("-6", "address", "show", "dev", device)


def _unique() -> str:
    return f"svcreg-{uuid.uuid4().hex[:10]}"


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
    return done.stdout
