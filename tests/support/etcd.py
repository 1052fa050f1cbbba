"""Start real etcd servers and clusters, and look at them past the code under test."""

from __future__ import annotations

import base64
import contextlib
import json
import random
import re
import shutil
import socket
import ssl
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.support import servers
from tests.support.servers import Process, eventually, find_program

# Short timers, so that elections and the least TTL take a fraction of a second.
TIMERS = ("--heartbeat-interval=20", "--election-timeout=200")
CLUSTER_TIMERS = ("--heartbeat-interval=50", "--election-timeout=500")

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def unique(name: str = "t") -> str:
    """Return a word that no other test uses."""
    return f"{name}-{uuid.uuid4().hex[:12]}"


def programs() -> dict[str, str]:
    """Return the path of each version of etcd that is here, by version, the newest last."""
    cache = servers._CACHE / "etcd"
    found = {}
    for folder in cache.glob("*"):
        program = next((p for p in folder.glob("**/bin/etcd") if p.is_file()), None)
        if (folder / ".complete").exists() and program is not None:
            found[folder.name] = str(program)
    return dict(sorted(found.items(), key=lambda item: _numbers(item[0])))


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def program(version: str = "") -> str:
    """Return the path of the newest etcd whose version begins so; skips the test without one.

    `SVCREG_ETCD_VERSION` says which one is the usual one; otherwise it is the newest but 3.6, which
    has to be built.
    """
    version = version or servers._ENVIRON.get("SVCREG_ETCD_VERSION", "")
    if not version and "SVCREG_TEST_ETCD" in servers._ENVIRON:
        return find_program("etcd", "etcd")
    wanted = (version,) if version else ("3.4", "3.5")
    matching = [path for name, path in programs().items() if name.startswith(wanted)]
    if not matching and version:
        servers.missing(f"etcd {version} is not here", "run: tools/install-servers etcd")
    return matching[-1] if matching else find_program("etcd", "etcd")


class Etcd:
    """One member, running or not; keeps its ports and its data."""

    def __init__(
        self,
        folder: Path,
        *,
        name: str = "n",
        version: str = "",
        options: Sequence[str] = TIMERS,
        scheme: str = "http",
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.name = name
        self.folder = folder
        self.port, self.peer_port = free_port(), free_port()
        self.scheme = scheme
        self.advertised = f"{scheme}://127.0.0.1:{self.port}"
        self.initial_cluster = f"{name}=http://127.0.0.1:{self.peer_port}"
        self._token = ""
        self._login = ("", "")
        self._program = program(version)
        self._options = list(options)
        self._context = context
        self.process: Process | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self, *, wait: bool = True) -> Etcd:
        peer = f"http://127.0.0.1:{self.peer_port}"
        self.process = Process(
            [
                self._program,
                f"--name={self.name}",
                f"--data-dir={self.folder / 'data'}",
                f"--listen-client-urls={self.scheme}://127.0.0.1:{self.port}",
                f"--advertise-client-urls={self.advertised}",
                f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster={self.initial_cluster}",
                "--unsafe-no-fsync",
                "--logger=zap",
                *self._options,
            ],
            self.folder / "log",
        )
        if wait:
            self.wait()
        return self

    def wait(self) -> None:
        assert self.process is not None
        self.process.wait_until(self.is_healthy, 20)

    def is_healthy(self) -> bool:
        try:
            return str(self._http("/health")["health"]) == "true"
        except (OSError, ValueError):
            return False

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()

    # The gateway that speaks JSON, so that nothing here depends on what is tested.

    def call(self, path: str, **body: Any) -> Any:
        """Call the server's API; bytes go as base64."""
        try:
            return self._http(f"/v3/{path}", body)
        except urllib.error.HTTPError as error:
            if not self._token or error.code not in (400, 401):
                raise
        self.log_in(*self._login)
        return self._http(f"/v3/{path}", body)

    def put(self, key: str, value: str | bytes, lease: int = 0) -> None:
        raw = value if isinstance(value, bytes) else value.encode()
        self.call("kv/put", key=_b64(key.encode()), value=_b64(raw), lease=lease)

    def delete(self, key: str) -> None:
        self.call("kv/deleterange", key=_b64(key.encode()))

    def items(self, prefix: str) -> dict[str, dict[str, Any]]:
        """Return what the server has below a prefix: value, lease, mod_revision."""
        raw = prefix.encode()
        end = raw[:-1] + bytes([raw[-1] + 1])
        answer = self.call("kv/range", key=_b64(raw), range_end=_b64(end))
        return {
            base64.b64decode(kv["key"]).decode(errors="replace"): {
                "value": base64.b64decode(kv.get("value", "")),
                "lease": int(kv.get("lease", 0)),
                "mod_revision": int(kv["mod_revision"]),
                "create_revision": int(kv["create_revision"]),
                "version": int(kv["version"]),
            }
            for kv in answer.get("kvs", ())
        }

    def revision(self) -> int:
        answer = self.call("kv/range", key=_b64(b"\0"))
        return int(answer["header"]["revision"])

    def compact(self) -> None:
        self.call("kv/compaction", revision=self.revision(), physical=True)

    def leases(self) -> list[int]:
        return [int(lease["ID"]) for lease in self.call("lease/leases").get("leases", ())]

    def is_leader(self) -> bool:
        try:
            status = self.call("maintenance/status")
        except OSError:
            return False
        return bool(status.get("leader") == status["header"]["member_id"])

    def log_in(self, name: str, password: str) -> None:
        """Be this user from now on, whenever the token expires; an empty name logs out."""
        self._token, self._login = "", (name, password)
        if name:
            self._token = self.call("auth/authenticate", name=name, password=password)["token"]

    def add_user(self, name: str, password: str, prefix: str | None = None) -> None:
        """Add a user who may read and write below a prefix; None is the role `root`."""
        self.call("auth/user/add", name=name, password=password)
        role = "root"
        if prefix is not None:
            role = f"{name}-role"
            self.call("auth/role/add", name=role)
            raw = prefix.encode()
            end = raw[:-1] + bytes([raw[-1] + 1])
            permission = {"permType": "READWRITE", "key": _b64(raw), "range_end": _b64(end)}
            self.call("auth/role/grant", name=role, perm=permission)
        self.call("auth/user/grant", user=name, role=role)

    def enable_auth(self, root_password: str) -> None:
        """Add the user root and switch authentication on; logs in as root."""
        with contextlib.suppress(urllib.error.HTTPError):  # 3.5 has the role from the start
            self.call("auth/role/add", name="root")
        self.add_user("root", root_password)
        self.call("auth/enable")
        self.log_in("root", root_password)

    def _http(self, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            f"{self.scheme}://{self.endpoint}{path}",
            None if body is None else json.dumps(body).encode(),
            {"Authorization": self._token} if self._token else {},
        )
        opener = _opener
        if self._context is not None:
            handlers = (
                urllib.request.ProxyHandler({}),
                urllib.request.HTTPSHandler(context=self._context),
            )
            opener = urllib.request.build_opener(*handlers)
        with opener.open(request, timeout=5) as answer:
            return json.loads(answer.read())


class EtcdCluster:
    """Several members, each of which may be reached by another address than its own."""

    def __init__(
        self,
        folder: Path,
        size: int = 3,
        *,
        version: str = "",
        options: Sequence[str] = (),
    ) -> None:
        self.members = [
            Etcd(
                folder / f"m{n}",
                name=f"m{n}",
                version=version,
                options=(*CLUSTER_TIMERS, "--initial-cluster-token=test", *options),
            )
            for n in range(size)
        ]
        joined = ",".join(member.initial_cluster for member in self.members)
        for member in self.members:
            member.initial_cluster = joined

    def start(self) -> EtcdCluster:
        for member in self.members:
            member.start(wait=False)
        for member in self.members:
            member.wait()
        return self

    def leader(self) -> Etcd:
        """Return the member that leads, waiting for one."""

        def find() -> Etcd | None:
            return next((member for member in self.members if member.is_leader()), None)

        found = eventually(find, 20, "a leader")
        assert isinstance(found, Etcd)
        return found

    def follower(self) -> Etcd:
        """Return a member that does not lead."""
        leader = self.leader()
        return next(member for member in self.members if member is not leader)

    def stop(self) -> None:
        for member in self.members:
            member.stop()


def free_port() -> int:
    """Return a port that nobody uses now, below those that the system gives out by itself."""
    for _ in range(100):
        port = random.randrange(10000, 32000)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port")


@contextlib.contextmanager
def running_etcd(folder: Path, **settings: Any) -> Iterator[Etcd]:
    """Run one server; where somebody took its port meanwhile, it is tried once more."""
    server = Etcd(folder, **settings)
    try:
        server.start()
    except BaseException:
        if "address already in use" not in (folder / "log").read_text(errors="replace"):
            raise
        server.stop()
        shutil.rmtree(folder)
        server = Etcd(folder, **settings).start()
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def running_cluster(folder: Path, **settings: Any) -> Iterator[EtcdCluster]:
    """Run a cluster of three."""
    cluster = EtcdCluster(folder, **settings)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def wait_for(condition: Callable[[], object], timeout: float = 10.0, what: str = "") -> Any:
    """Wait for a condition and return its value."""
    return eventually(condition, timeout, what or "the condition")


class Certificates:
    """An authority, and what it signed: PEM files for a server and for clients."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = trustme.CA()
        self.ca = str(folder / "ca.pem")
        self._authority.cert_pem.write_to_path(self.ca)
        self.cert, self.key = self.issue("server", "127.0.0.1", "localhost")

    def issue(self, name: str, *identities: str, common_name: str | None = None) -> tuple[str, str]:
        """Sign a certificate; return the paths of it and of its key."""
        signed = self._authority.issue_cert(*(identities or ("client",)), common_name=common_name)
        cert, key = str(self._folder / f"{name}.pem"), str(self._folder / f"{name}-key.pem")
        signed.cert_chain_pems[0].write_to_path(cert)
        signed.private_key_pem.write_to_path(key)
        return cert, key

    def context(self, cert: str | None = None, key: str | None = None) -> ssl.SSLContext:
        """Return what the looks past the code under test need."""
        context = ssl.create_default_context(cafile=self.ca)
        if cert is not None:
            context.load_cert_chain(cert, key)
        return context

    def options(self, *, mutual: bool) -> list[str]:
        """Return the options of a server that has such a certificate, or also wants one."""
        options = [f"--cert-file={self.cert}", f"--key-file={self.key}"]
        if mutual:
            options += [f"--trusted-ca-file={self.ca}", "--client-cert-auth"]
        return options


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """One authority for all tests of a process."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    """One server for all tests of a process; use a prefix of your own."""
    with running_etcd(tmp_path_factory.mktemp("etcd")) as server:
        yield server


@pytest.fixture
def prefix() -> str:
    """Return a prefix that no other test uses."""
    return f"/{unique()}/"


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
