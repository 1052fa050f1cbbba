"""TLS: whom we trust, who we are, and what is said when that does not fit."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import svcreg
from svcreg.errors import ConfigError, RegistryUnavailableError
from svcreg.testing import FaultProxy
from svcreg.testing.conformance.faces import BlockingClient
from tests.integration.etcd.conftest import node
from tests.support.etcd import TIMERS, Certificates, Etcd, running_etcd, unique, wait_for

pytestmark = [pytest.mark.server("etcd"), pytest.mark.xdist_group("etcd-tls-errors")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Etcd]:
    """Return a server that wants a certificate of its clients."""
    with running_etcd(
        tmp_path_factory.mktemp("etcd"),
        scheme="https",
        context=certificates.context(certificates.cert, certificates.key),
        options=(*TIMERS, *certificates.options(mutual=True)),
    ) as server:
        yield server


def refusal(url: str, **options: Any) -> str:
    """Return what registering fails with, which must not take long."""
    started = time.monotonic()
    with (
        contextlib.closing(svcreg.open(url, **options)) as registry,
        pytest.raises(RegistryUnavailableError) as caught,
    ):
        registry.register(node(unique(), "n"))
    assert time.monotonic() - started < 4
    return str(caught.value)


def test_client_without_a_certificate_is_told(server: Etcd, certificates: Certificates) -> None:
    said = refusal(f"etcd://{server.endpoint}?ca={certificates.ca}")
    assert "certificate" in said.lower()


def test_server_that_is_not_trusted_is_refused(server: Etcd, certificates: Certificates) -> None:
    tls = svcreg.TLS(cert=certificates.cert, key=certificates.key)
    said = refusal(f"etcd://{server.endpoint}", tls=tls)
    assert "not trusted" in said


def test_certificate_of_another_host_is_refused(tmp_path: Path, certificates: Certificates) -> None:
    cert, key = certificates.issue("elsewhere", "elsewhere.example")
    lenient = certificates.context()
    lenient.check_hostname = False
    with running_etcd(
        tmp_path,
        scheme="https",
        context=lenient,
        options=(*TIMERS, f"--cert-file={cert}", f"--key-file={key}"),
    ) as server:
        said = refusal(f"etcd://{server.endpoint}?ca={certificates.ca}")
        assert "not trusted" in said
        with contextlib.closing(svcreg.open(f"etcd://{server.endpoint}?verify=false")) as registry:
            assert registry.get(unique()) == ()


def test_plain_text_to_a_server_with_tls_says_what_is_wrong(server: Etcd) -> None:
    assert "TLS" in refusal(f"etcd://{server.endpoint}")


def test_tls_to_a_server_without_it_says_what_is_wrong(
    etcd: Etcd, certificates: Certificates
) -> None:
    assert "TLS" in refusal(f"etcd://{etcd.endpoint}?ca={certificates.ca}")


def test_missing_file_is_a_mistake_in_the_settings(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.pem"):
        svcreg.open(f"etcd://127.0.0.1:1?ca={tmp_path}/missing.pem")


def test_settings_of_etcds_own_tool_are_read(
    server: Etcd, certificates: Certificates, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    monkeypatch.setenv("ETCDCTL_ENDPOINTS", f"https://127.0.0.1:1,https://{server.endpoint}")
    monkeypatch.setenv("ETCDCTL_CACERT", certificates.ca)
    monkeypatch.setenv("ETCDCTL_CERT", certificates.cert)
    monkeypatch.setenv("ETCDCTL_KEY", certificates.key)
    name = unique("svc")
    with contextlib.closing(svcreg.open("etcd", prefix=prefix)) as registry:
        registry.register(node(name, "n"))
        assert list(server.items(prefix)) == [f"{prefix}{name}/n"]


def test_proxy_of_the_environment_is_ignored(etcd: Etcd, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY", "grpc_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
    with contextlib.closing(svcreg.open(f"etcd://{etcd.endpoint}")) as registry:
        assert registry.get(unique()) == ()


def test_certificates_that_are_replaced_while_running_are_used_for_the_next_connection(
    tmp_path: Path, prefix: str
) -> None:
    folders = []
    for name in ("old", "new"):
        folder = tmp_path / name
        folder.mkdir()
        folders.append(Certificates(folder))
    old, new = folders
    live = tmp_path / "live"
    shutil.copytree(tmp_path / "old", live)
    options = [option.replace("/old/", "/live/") for option in old.options(mutual=True)]
    with running_etcd(
        tmp_path / "etcd",
        scheme="https",
        context=old.context(old.cert, old.key),
        options=(*TIMERS, *options),
    ) as server:
        files = f"ca={live}/ca.pem&cert={live}/server.pem&key={live}/server-key.pem"
        client = BlockingClient(f"etcd://{server.endpoint}?prefix={prefix}&{files}")
        try:
            name = unique("svc")
            held = client.register(node(name, "n"), ttl=2.0)
            server.kill()
            shutil.copytree(tmp_path / "new", live, dirs_exist_ok=True)
            server._context = new.context(new.cert, new.key)
            server.start()
            restarted_at = time.time()
            wait_for(lambda: held.raw.last_renewal > restarted_at, 10)
            assert server.items(f"{prefix}{name}/")
        finally:
            client.end()


def test_black_hole_under_tls_is_left_in_seconds_and_closing_does_not_hang(
    server: Etcd, certificates: Certificates, prefix: str
) -> None:
    """TLS says goodbye before it closes, which a black hole never answers."""
    files = f"ca={certificates.ca}&cert={certificates.cert}&key={certificates.key}"
    with FaultProxy(server.endpoint) as proxy, FaultProxy(server.endpoint) as other:
        url = f"etcd://{proxy.address},{other.address}?prefix={prefix}&{files}"
        client = BlockingClient(url)
        try:
            name = unique("svc")
            client.register(node(name, "n"), ttl=6.0)
            watching = client.watch(name)
            wait_for(lambda: watching.seen("n"))
            holed = proxy if proxy.open_connections else other
            holed.black_hole()
            client_other = BlockingClient(f"etcd://{server.endpoint}?prefix={prefix}&{files}")
            client_other.register(node(name, "later"))
            wait_for(lambda: watching.seen("later") == ["create"], 8)
            client_other.end()
            (proxy if holed is other else other).black_hole()
        finally:
            started = time.monotonic()
            client.end()
            assert time.monotonic() - started < 8
