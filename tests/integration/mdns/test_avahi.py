"""Next to avahi, which serves the same port: its daemon and tools on a host of their own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.integration.mdns.conftest import StartProgram
from tests.support.mdns import node_ids, service, unique
from tests.support.namespaces import Host
from tests.support.servers import Process, eventually, find_program, library_path, running

pytestmark = [pytest.mark.root, pytest.mark.server("avahi")]

_BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/>
  </policy>
</busconfig>
"""
_DAEMON = """[server]
host-name={name}
use-ipv4=yes
use-ipv6=no
allow-interfaces=lo,link0
[publish]
publish-hinfo=no
publish-workstation=no
"""


class Avahi:
    """avahi's tools, talking to the daemon of one host."""

    def __init__(self, host: Host, env: Mapping[str, str], folder: Path) -> None:
        self.host = host
        self._env = env
        self._folder = folder

    def browse(self) -> str:
        """Return every instance with its records, one line each."""
        return subprocess.run(
            [*self.host.prefix, find_program("avahi", "avahi-browse"), "-rpt", "_micro._tcp"],
            env=dict(self._env),
            capture_output=True,
            text=True,
            timeout=20,
        ).stdout

    def publish(self, *arguments: str) -> Process:
        """Publish an instance until the process is stopped."""
        command = [*self.host.prefix, find_program("avahi", "avahi-publish"), "-s", *arguments]
        return Process(command, self._folder / "publish.log", env=self._env)


@pytest.fixture
def avahi(one_host: Host, tmp_path: Path) -> Iterator[Avahi]:
    """A host with avahi-daemon and a message bus for it."""
    daemon, bus = find_program("avahi", "avahi-daemon"), find_program("avahi", "dbus-daemon")
    # avahi leaves interfaces alone that are not multicast; a cable to nowhere is one.
    one_host.ip("link", "add", "link0", "type", "veth", "peer", "name", "link1")
    one_host.ip("address", "add", "10.77.9.1/24", "dev", "link0")
    for device in ("link0", "link1"):
        one_host.ip("link", "set", device, "up")
    socket = tmp_path / "bus"
    (tmp_path / "bus.conf").write_text(_BUS.format(socket=socket))
    (tmp_path / "avahi.conf").write_text(_DAEMON.format(name=unique("avahi")))
    env = {"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={socket}", **library_path("avahi")}
    # The daemon looks its user up even where it stays root; give it one, for its own eyes only.
    for file, line in (("passwd", "avahi:x:0:0::/:/bin/false\n"), ("group", "avahi:x:0:\n")):
        (tmp_path / file).write_text(Path("/etc", file).read_text() + line)
    private = f"mount -t tmpfs tmpfs /run && cd {tmp_path} && " + " && ".join(
        f"mount --bind {file} /etc/{file}" for file in ("passwd", "group")
    )
    flags = "--no-drop-root --no-chroot --no-rlimits"
    command = f"{private} && exec {daemon} {flags} -f {tmp_path}/avahi.conf"
    with (
        running(
            [
                *one_host.prefix,
                bus,
                "--nofork",
                "--nopidfile",
                f"--config-file={tmp_path}/bus.conf",
            ],
            tmp_path / "bus.log",
            env=env,
            is_ready=socket.exists,
        ),
        running(
            [*one_host.prefix, "unshare", "--mount", "sh", "-c", command],
            log := tmp_path / "avahi.log",
            env=env,
            is_ready=lambda: log.exists() and "Server startup complete" in log.read_text(),
        ),
    ):
        yield Avahi(one_host, env, tmp_path)


def test_avahi_finds_what_we_register(start: StartProgram, avahi: Avahi) -> None:
    name = unique("ours")
    owner = start("link0", avahi.host.prefix)
    reader = start("link0", avahi.host.prefix)
    reader.watch(name)
    given = service(name, "shop.1", "10.77.9.1:8080", node_metadata={"zone": "z1"})
    owner.call("register", service=given, ttl=30)
    reader.expect_change("upsert", "shop.1")
    resolved = [line for line in avahi.browse().splitlines() if line.startswith("=")]
    (fields,) = [line.split(";") for line in resolved if name in line]
    assert fields[3].startswith("shop_1-")
    assert fields[7:9] == ["10.77.9.1", "8080"]
    assert f'"s={name}"' in fields[9]
    assert '"id=shop.1"' in fields[9]
    owner.call("deregister", service=given)
    eventually(lambda: name not in avahi.browse(), what="avahi's forgetting of the node")


def test_we_find_what_avahi_publishes(start: StartProgram, avahi: Avahi) -> None:
    name = unique("theirs")
    reader = start("link0", avahi.host.prefix)
    reader.watch(name)
    records = [f"s={name}", "v=1.0", "id=by-hand"]
    published = avahi.publish(f"Any label of {name}", "_micro._tcp", "8088", *records)
    try:
        node = reader.expect_change("upsert", "by-hand")["service"]["nodes"][0]
        assert node == {"id": "by-hand", "address": "10.77.9.1:8088", "metadata": {}}
        # Cold, too.
        cold = start("link0", avahi.host.prefix)
        eventually(lambda: node_ids(cold.call("get", name=name)) == ["by-hand"], what="a cold read")
    finally:
        published.stop()
    reader.expect_change("delete", "by-hand")
