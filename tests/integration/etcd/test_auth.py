"""Users, passwords, tokens and roles."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

import svcreg
from svcreg.errors import ConfigError, PermissionDeniedError
from svcreg.testing.conformance.faces import BlockingClient
from tests.integration.etcd.conftest import node
from tests.support.etcd import TIMERS, Certificates, Etcd, running_etcd, unique, wait_for

pytestmark = [pytest.mark.server("etcd"), pytest.mark.xdist_group("etcd-auth")]

CHEAP = (*TIMERS, "--bcrypt-cost=4")
APP = "/app/"
"""The prefix of the user `app`."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    with running_etcd(tmp_path_factory.mktemp("etcd"), options=CHEAP) as server:
        server.add_user("app", "right", APP)
        server.enable_auth("root")
        yield server


@contextlib.contextmanager
def opened(server: Etcd, login: str = "app:right@", query: str = "") -> Iterator[BlockingClient]:
    client = BlockingClient(f"etcd://{login}{server.endpoint}?prefix={APP}{query}")
    try:
        yield client
    finally:
        client.end()


def logins(server: Etcd) -> int:
    """Return how often somebody has logged in or tried to, over gRPC."""
    request = urllib.request.Request(f"http://{server.endpoint}/metrics")
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
        text = answer.read().decode()
    pattern = r'grpc_server_handled_total\{[^}]*grpc_method="Authenticate"[^}]*\} (\d+)'
    return sum(int(number) for number in re.findall(pattern, text))


def test_wrong_password_fails_fast_and_does_not_hammer(
    server: Etcd, caplog: pytest.LogCaptureFixture
) -> None:
    before = logins(server)
    with opened(server, "app:wrong-s3cret@") as client:
        started = time.monotonic()
        with pytest.raises(PermissionDeniedError, match=r"authentication failed.*check user"):
            client.register(node(unique(), "n"))
        assert time.monotonic() - started < 2
        client.register(node(unique(), "n"), required=False, ttl=1.5)
        with pytest.raises(PermissionDeniedError):
            client.get(unique())
        busy_until = time.monotonic() + 3
        wait_for(lambda: time.monotonic() > busy_until)
    tried = logins(server) - before
    print(f"\n{tried} logins tried in 3 s")
    assert tried <= 2
    assert "wrong-s3cret" not in caplog.text


def test_no_user_is_told_what_is_missing(server: Etcd) -> None:
    with opened(server, "") as client, pytest.raises(PermissionDeniedError, match="ETCD_USERNAME"):
        client.register(node(unique(), "n"))


def test_user_from_the_environment(server: Etcd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETCD_USERNAME", "app")
    monkeypatch.setenv("ETCD_PASSWORD", "right")
    with opened(server, "") as client:
        client.register(node(unique(), "n"))


def test_user_without_a_password_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="password"):
        svcreg.open("etcd://app@127.0.0.1:1").get("svc")


def test_role_without_the_right_is_refused_and_says_so(server: Etcd) -> None:
    url = f"etcd://app:right@{server.endpoint}?prefix=/elsewhere/"
    client = BlockingClient(url)
    try:
        with pytest.raises(PermissionDeniedError, match=r"permission denied.*readwrite"):
            client.register(node(unique(), "n"))
        with pytest.raises(PermissionDeniedError):
            client.get(unique())
    finally:
        client.end()


def test_refused_record_or_watch_hides_no_neighbour(server: Etcd) -> None:
    """A role for one service only: others in the same transaction and stream are refused."""
    name, forbidden = unique("allowed"), unique("forbidden")
    server.add_user(name, "pw", f"/mixed/{name}/")
    url = f"etcd://{name}:pw@{server.endpoint}?prefix=/mixed/"

    async def register() -> list[object]:
        async with svcreg.aio.open(url) as registry:
            services = [node(one, f"n{n}") for n in range(5) for one in (name, forbidden)]
            outcomes: list[object] = list(
                await asyncio.gather(
                    *(registry.register(service) for service in services), return_exceptions=True
                )
            )
            assert len((await registry.get(name))[0].nodes) == 5
            with pytest.raises(PermissionDeniedError):
                await registry.get(forbidden)
            async with registry.watch(name) as events:
                assert (await anext(aiter(events))).service.name == name
            return outcomes

    outcomes = asyncio.run(register())
    assert [isinstance(outcome, PermissionDeniedError) for outcome in outcomes] == [False, True] * 5


def lives_through(server: Etcd, client: BlockingClient, disturb: object, ttl: float = 3.0) -> None:
    """Register and watch, disturb, and see that both go on and that new watches can be had."""
    name = unique("svc")
    key = f"{APP}{name}/n"
    held = client.register(node(name, "n"), ttl=ttl)
    watching = client.watch(name)
    wait_for(lambda: watching.seen("n"))
    before = server.items(key)[key]
    assert callable(disturb)
    disturb()
    disturbed_at = time.time()
    wait_for(lambda: held.raw.last_renewal > disturbed_at + ttl, 4 * ttl, "renewals")
    client.register(node(name, "later"))
    wait_for(lambda: watching.seen("later") == ["create"])
    other = unique("svc")
    assert client.get(other) == ()
    client.register(node(other, "n"))
    wait_for(lambda: client.get(other))
    assert server.items(key)[key] == before
    assert watching.seen("n") == ["create"]
    assert held.raw.state == "active"


def test_tokens_that_expire_between_renewals_are_renewed(tmp_path: Path) -> None:
    options = (*CHEAP, "--auth-token-ttl=1")
    with running_etcd(tmp_path, version="3.5", options=options) as server:
        server.add_user("app", "right", APP)
        server.enable_auth("root")
        with opened(server) as client:
            lives_through(server, client, lambda: None, ttl=6.0)
            assert logins(server) >= 3


def test_json_web_tokens_that_expire_or_are_outdated_are_renewed(tmp_path: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private, public = tmp_path / "key.pem", tmp_path / "public.pem"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    token = f"--auth-token=jwt,pub-key={public},priv-key={private},sign-method=RS256,ttl=2s"
    with running_etcd(tmp_path / "etcd", options=(*CHEAP, token)) as server:
        server.add_user("app", "right", APP)
        server.enable_auth("root")
        with opened(server) as client:

            def change_users() -> None:
                server.call("auth/user/add", name="somebody", password="else")

            lives_through(server, client, change_users)


def test_restart_of_the_server_which_forgets_all_tokens(tmp_path: Path) -> None:
    with running_etcd(tmp_path, options=CHEAP) as server:
        server.add_user("app", "right", APP)
        server.enable_auth("root")
        with opened(server) as client:

            def restart() -> None:
                server.kill()
                server.start()
                server.log_in("root", "root")

            lives_through(server, client, restart)


def test_password_that_is_changed_while_running_is_read_from_its_file(
    server: Etcd, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text("first\n")
    user = unique("user")
    server.add_user(user, "first", APP)
    with opened(server, f"{user}@", f"&password_file={file}") as client:

        def change() -> None:
            file.write_text("second\n")
            server.call("auth/user/changepw", name=user, password="second")

        lives_through(server, client, change)


def test_password_that_is_changed_and_changed_back(
    server: Etcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to 3.5 whoever has a lease may keep it; from 3.6 on the registration is lost till then."""
    monkeypatch.setattr("svcreg_etcd.lease.RECONCILE_PERIOD", 0.2)
    user, name = unique("user"), unique("svc")
    server.add_user(user, "first", APP)
    with opened(server, f"{user}:first@") as client:
        held = client.register(node(name, "n"), ttl=1.5)
        server.call("auth/user/changepw", name=user, password="second")
        changed_at = time.time()

        def is_settled() -> bool:
            is_kept = held.raw.last_renewal > changed_at + 3 and held.raw.state == "active"
            return is_kept or isinstance(held.raw.error, PermissionDeniedError)

        wait_for(is_settled, 10)
        with pytest.raises(PermissionDeniedError):
            client.register(node(name, "other"))
        server.call("auth/user/changepw", name=user, password="first")
        wait_for(lambda: held.raw.state == "active" and server.items(f"{APP}{name}/n"), 10)

        def register() -> bool:
            with contextlib.suppress(PermissionDeniedError):
                client.register(node(name, "other"))
                return True
            return False

        wait_for(register, 10)


def test_authentication_switched_on_and_off_while_running(tmp_path: Path) -> None:
    with running_etcd(tmp_path, options=CHEAP) as server:
        server.add_user("app", "right", APP)
        with opened(server) as client:  # a user where nobody needs one

            def switch_on() -> None:
                server.enable_auth("root")

            lives_through(server, client, switch_on)

            def switch_off() -> None:
                server.call("auth/disable")
                server.log_in("", "")

            lives_through(server, client, switch_off)


def test_name_in_a_client_certificate_is_a_user_without_a_password(
    tmp_path: Path, certificates: Certificates
) -> None:
    cert, key = certificates.issue("app", common_name="app")
    other = certificates.issue("other", common_name="nobody")
    with running_etcd(
        tmp_path,
        scheme="https",
        context=certificates.context(certificates.cert, certificates.key),
        options=(*CHEAP, *certificates.options(mutual=True)),
    ) as server:
        server.add_user("app", "right", APP)
        server.enable_auth("root")
        name = unique("svc")
        query = f"?prefix={APP}&ca={certificates.ca}"
        with contextlib.closing(
            svcreg.open(f"etcd://{server.endpoint}{query}&cert={cert}&key={key}")
        ) as registry:
            registry.register(node(name, "n"))
            assert registry.get(name) == (node(name, "n"),)
        cert, key = other
        with (
            contextlib.closing(
                svcreg.open(f"etcd://{server.endpoint}{query}&cert={cert}&key={key}")
            ) as registry,
            pytest.raises(PermissionDeniedError),
        ):
            registry.register(node(name, "n"))
