"""Settings from arguments, URL and the environment of Consul's own tools."""

from __future__ import annotations

from pathlib import Path

import pytest

from svcreg import TLS, Config
from svcreg.config import load_config
from svcreg.errors import ConfigError
from svcreg_consul.credentials import RECHECK_SECONDS, Token
from svcreg_consul.options import Address, Settings, load_settings


def settings(
    url: str = "consul", environ: dict[str, str] | None = None, **options: object
) -> Settings:
    return load_settings(load_config(url, options=options, environ={}), environ or {})


def test_default_is_the_agent_of_this_machine() -> None:
    found = settings()
    assert [address.base_url for address in found.addresses] == ["http://127.0.0.1:8500"]
    assert (found.tls, found.token, found.token_file, found.timeout) == (None, None, None, 5.0)


@pytest.mark.parametrize(
    ("text", "label", "url"),
    [
        ("10.0.0.1", "10.0.0.1:8500", "http://10.0.0.1:8500"),
        ("consul.example:80", "consul.example:80", "http://consul.example:80"),
        ("[::1]:8500", "[::1]:8500", "http://[::1]:8500"),
        ("http://h:1", "h:1", "http://h:1"),
        ("https://h:1", "h:1", "https://h:1"),
        ("unix:///run/consul.sock", "unix:///run/consul.sock", "http://localhost"),
    ],
)
def test_addresses(text: str, label: str, url: str) -> None:
    for found in (settings(environ={"CONSUL_HTTP_ADDR": text}), settings(f"consul://{text}")):
        assert [(a.label, a.base_url) for a in found.addresses] == [(label, url)]


def test_several_agents_keep_their_order() -> None:
    found = settings("consul://a:1,b,c:3")
    assert [address.label for address in found.addresses] == ["a:1", "b:8500", "c:3"]


def test_path_of_a_url_is_a_socket() -> None:
    (address,) = settings("consul:///run/consul.sock").addresses
    assert address == Address("unix:///run/consul.sock", "http://localhost", "/run/consul.sock")


@pytest.mark.parametrize("text", ["unix://relative", "ftp://h:1", "h/path", "http://u:p@h:1"])
def test_address_that_is_none(text: str) -> None:
    with pytest.raises(ConfigError):
        settings(environ={"CONSUL_HTTP_ADDR": text})


def test_argument_wins_over_environment() -> None:
    environ = {
        "CONSUL_HTTP_ADDR": "other:1",
        "CONSUL_HTTP_TOKEN": "theirs",
        "CONSUL_NAMESPACE": "n",
    }
    found = settings("consul://mine:1?namespace=m", environ, token="ours")
    assert found.addresses[0].label == "mine:1"
    assert (found.token, found.options.namespace) == ("ours", "m")


def test_token_file_wins_over_token_of_the_environment() -> None:
    environ = {"CONSUL_HTTP_TOKEN": "a", "CONSUL_HTTP_TOKEN_FILE": "/f"}
    assert settings(environ=environ)[4:6] == (None, "/f")
    assert settings(environ=environ, token="b")[4:6] == ("b", None)


def test_tls_of_the_environment() -> None:
    files = {"CONSUL_CACERT": "ca", "CONSUL_CLIENT_CERT": "cert", "CONSUL_CLIENT_KEY": "key"}
    assert settings(environ=files).tls is None  # as Consul's tools: files alone switch nothing on
    found = settings(environ={**files, "CONSUL_HTTP_SSL": "true"})
    assert found.tls == TLS(ca="ca", cert="cert", key="key")
    assert found.addresses[0].base_url == "https://127.0.0.1:8500"
    found = settings(environ={"CONSUL_HTTP_SSL": "1", "CONSUL_HTTP_SSL_VERIFY": "false"})
    assert found.tls == TLS(verify=False)
    with pytest.raises(ConfigError, match="both"):
        settings(environ={"CONSUL_HTTP_SSL": "1", "CONSUL_CLIENT_CERT": "cert"})


def test_datacentres() -> None:
    assert settings().options.datacentres == ("",)
    assert settings("consul://h?dc=a,b").options.datacentres == ("a", "b")


@pytest.mark.parametrize(
    "query", ["check=ping", "polls=-1", "polls=1000", "check_interval=0", "nope=1", "stale=maybe"]
)
def test_wrong_option_is_refused(query: str) -> None:
    with pytest.raises(ConfigError):
        settings(f"consul://h?{query}")


def test_token_that_no_header_may_hold_is_refused_without_being_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(Config(backend="consul", token="se\r\ncret"), {})
    assert "cret" not in str(caught.value)


def test_nothing_shows_a_token() -> None:
    found = settings(token="secret")
    token = Token("secret", None)
    assert "secret" not in f"{found} {found!r} {token} {token!r}"
    assert token.hide("token secret is bad") == "token *** is bad"


def test_token_file_is_read_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("svcreg_consul.credentials.time.monotonic", lambda: now[0])
    path = tmp_path / "token"
    token = Token(None, str(path))
    with pytest.raises(ConfigError, match="token"):
        token.read()
    path.write_text("one\n")
    assert token.read() == "one"
    path.write_text("second\n")
    now[0] += RECHECK_SECONDS + 0.1
    assert token.read() == "second"
    path.unlink()
    now[0] += RECHECK_SECONDS + 0.1
    assert token.read() == "second"  # the last one that there was
