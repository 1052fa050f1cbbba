"""Where settings are read from, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from svcreg import TLS, Config
from svcreg.config import load_config
from svcreg.errors import ConfigError
from svcreg_etcd.options import Settings, load_settings


def settings(url: str = "etcd", environ: dict[str, str] | None = None, **options: Any) -> Settings:
    return load_settings(load_config(url, options=options, environ={}), environ or {})


def test_defaults() -> None:
    found = settings()
    assert found.endpoints == ("127.0.0.1:2379",)
    assert found.options.layout == "go-micro"
    assert (found.tls, found.username, found.password) == (None, None, None)


def test_every_member_of_a_url_and_the_usual_port() -> None:
    found = settings("etcd://a:2379,b,[::1],[::1]:1,10.0.0.1:23790")
    assert found.endpoints == ("a:2379", "b:2379", "[::1]:2379", "[::1]:1", "10.0.0.1:23790")


@pytest.mark.parametrize(
    ("text", "endpoints", "secure"),
    [
        ("a:1, b:2", ("a:1", "b:2"), False),
        ("http://a:1,https://b:2/", ("a:1", "b:2"), True),
        ("https://a", ("a:2379",), True),
    ],
)
def test_endpoints_of_etcds_own_tool(text: str, endpoints: tuple[str, ...], secure: bool) -> None:
    found = settings(environ={"ETCDCTL_ENDPOINTS": text})
    assert found.endpoints == endpoints
    assert (found.tls is not None) is secure
    assert settings("etcd://c:3", environ={"ETCDCTL_ENDPOINTS": text}).endpoints == ("c:3",)


def test_tls_of_etcds_own_tool_fills_what_is_not_set() -> None:
    environ = {"ETCDCTL_CACERT": "env-ca", "ETCDCTL_CERT": "env-cert", "ETCDCTL_KEY": "env-key"}
    assert settings(environ=environ).tls == TLS("env-ca", "env-cert", "env-key")
    assert settings("etcd://a?ca=own", environ=environ).tls == TLS("own", "env-cert", "env-key")
    own = settings("etcd://a?cert=c&key=k&verify=false", environ=environ).tls
    assert own == TLS("env-ca", "c", "k", verify=False)


def test_half_a_pair_is_refused() -> None:
    with pytest.raises(ConfigError, match="ETCDCTL_KEY"):
        settings(environ={"ETCDCTL_CERT": "c"})


def test_login_from_url_arguments_and_environment() -> None:
    environ = {"ETCD_USERNAME": "env", "ETCD_PASSWORD": "env-secret"}
    assert settings(environ=environ).current_password() == "env-secret"
    found = settings("etcd://me:own@a", environ=environ)
    assert (found.username, found.current_password()) == ("me", "own")
    assert settings("etcd", environ, username="x", password="y").username == "x"


def test_password_file_is_read_each_time(tmp_path: Any) -> None:
    file = tmp_path / "password"
    file.write_text("one\n")
    found = settings(f"etcd://me@a?password_file={file}")
    assert found.current_password() == "one"
    file.write_text("two")
    assert found.current_password() == "two"
    file.unlink()
    with pytest.raises(ConfigError, match="password file"):
        found.current_password()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("etcd://me@a", "needs a password"),
        ("etcd://a?password_file=/x", "needs a user"),
        ("etcd://a?layout=zookeeper", "layout"),
        ("etcd://a?prefx=/x", "no option 'prefx'; it knows layout, password_file, prefix"),
        ("etcd:///a/path", "host:port"),
    ],
)
def test_mistakes_say_what_to_write(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        settings(url)


def test_password_is_in_no_repr() -> None:
    assert "s3cret" not in repr(settings("etcd://me:s3cret@a"))
    assert "s3cret" not in f"{Config(backend='etcd', password='s3cret')}"
