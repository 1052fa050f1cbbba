"""Settings: which one wins, what every URL form means, and that no credential gets out."""

from __future__ import annotations

import math
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from svcreg import TLS, Config, ConfigError
from svcreg.config import load_config, parse_bool, parse_seconds, register_times

SECRET = "s3cr3t-Pa55"


def load(backend: Any = None, env: Mapping[str, str] | None = None, **arguments: Any) -> Config:
    options = {
        name: arguments.pop(name) for name in list(arguments) if name not in ("address", "timeout")
    }
    return load_config(backend, options=options, environ=env or {}, **arguments)


def test_nothing_set_means_mdns() -> None:
    config = load()
    assert config == Config(backend="mdns")
    assert (config.timeout, config.empty_grace, config.feed_idle) == (5.0, 30.0, 600.0)


def test_argument_wins_over_url_over_environment_over_default() -> None:
    env = {
        "MICRO_REGISTRY": "etcd",
        "MICRO_REGISTRY_ADDRESS": "10.0.0.1:1",
        "MICRO_REGISTRY_TLS_CA": "env.pem",
        "MICRO_ADVERTISE": "env",
    }
    config = load(env=env)
    assert (config.backend, config.addresses, config.advertise) == ("etcd", ("10.0.0.1:1",), "env")
    assert config.tls == TLS(ca="env.pem")

    url = "etcd://10.0.0.2:2?ca=url.pem&advertise=url&timeout=3&empty_grace=4&feed_idle=6"
    config = load(url, env)
    assert (config.addresses, config.advertise, config.timeout) == (("10.0.0.2:2",), "url", 3)
    assert (config.empty_grace, config.feed_idle, config.tls) == (4, 6, TLS(ca="url.pem"))

    config = load(
        url,
        env,
        address="10.0.0.3:3",
        timeout=7,
        ca="argument.pem",
        advertise="argument",
        empty_grace=8,
        feed_idle=9,
    )
    assert (config.addresses, config.advertise) == (("10.0.0.3:3",), "argument")
    assert (config.timeout, config.empty_grace, config.feed_idle) == (7, 8, 9)
    assert config.tls == TLS(ca="argument.pem")
    assert config.options == {}


def test_environment_may_hold_a_url() -> None:
    env = {"MICRO_REGISTRY": "consul://10.0.0.1:8500?dc=east", "MICRO_REGISTRY_ADDRESS": "other:1"}
    config = load(env=env)
    assert (config.backend, config.addresses) == ("consul", ("10.0.0.1:8500",))
    assert config.options == {"dc": "east"}


def test_address_in_the_environment_is_for_the_backend_named_there() -> None:
    env = {
        "MICRO_REGISTRY": "etcd",
        "MICRO_REGISTRY_ADDRESS": "etcd.example:2379",
        "MICRO_REGISTRY_TLS_CA": "etcd.pem",
        "MICRO_ADVERTISE": "10.0.0.9",
    }
    assert load("consul", env) == Config(backend="consul", advertise="10.0.0.9")
    assert load("etcd", env).addresses == ("etcd.example:2379",)
    for registry in ({}, {"MICRO_REGISTRY": ""}):
        config = load("consul", {"MICRO_REGISTRY_ADDRESS": "h:1", **registry})
        assert config.addresses == ("h:1",)


def test_empty_environment_variables_are_as_good_as_none() -> None:
    names = ("MICRO_REGISTRY", "MICRO_REGISTRY_ADDRESS", "MICRO_REGISTRY_TLS_CA", "MICRO_ADVERTISE")
    assert load(env=dict.fromkeys(names, "")) == Config(backend="mdns")


def test_real_environment_is_read_when_the_call_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MICRO_REGISTRY", "sqlite:///tmp/a.db")
    assert load_config().addresses == ("/tmp/a.db",)


@pytest.mark.parametrize(
    ("url", "addresses", "options"),
    [
        ("memory", (), {}),
        ("memory://", (), {}),
        ("memory:///", (), {}),
        ("memory://tests", ("tests",), {}),
        ("sqlite:///path/registry.db", ("/path/registry.db",), {}),
        ("sqlite:///a%20b/c,d@e.db", ("/a b/c,d@e.db",), {}),
        ("sqlite:///path/registry.db?busy=1", ("/path/registry.db",), {"busy": "1"}),
        ("mdns://?interfaces=lo", (), {"interfaces": "lo"}),
        (
            "mdns://?interfaces=lo,eth0&dialect=both",
            (),
            {"interfaces": "lo,eth0", "dialect": "both"},
        ),
        ("etcd://10.0.0.1:2379,10.0.0.2:2379", ("10.0.0.1:2379", "10.0.0.2:2379"), {}),
        ("etcd://10.0.0.1:1,[::1]:2", ("10.0.0.1:1", "[::1]:2"), {}),
        ("etcd://[::1]:2379,[fe80::1]:2379", ("[::1]:2379", "[fe80::1]:2379"), {}),
        ("etcd://[::1]", ("[::1]",), {}),
        ("etcd://host/", ("host",), {}),
        ("consul://host:8500/prefix", ("host:8500/prefix",), {}),
        ("k8s_x-1://host?empty=", ("host",), {"empty": ""}),
        ("etcd://host?a=%26%3D&b=x+y", ("host",), {"a": "&=", "b": "x y"}),
    ],
)
def test_url_forms(url: str, addresses: tuple[str, ...], options: dict[str, str]) -> None:
    config = load(url)
    assert config.backend == url.partition(":")[0]
    assert (config.addresses, config.options) == (addresses, options)


@pytest.mark.parametrize(
    ("url", "username", "password"),
    [
        ("etcd://me:pw@host:1", "me", "pw"),
        ("etcd://me@host:1", "me", None),
        ("etcd://me:p%40%2F%3A@host:1", "me", "p@/:"),
        ("etcd://me:p@w@host:1", "me", "p@w"),
        ("etcd://m%3Ae:pw@host:1", "m:e", "pw"),
    ],
)
def test_credentials_in_a_url(url: str, username: str, password: str | None) -> None:
    config = load(url)
    assert (config.username, config.password) == (username, password)
    assert config.addresses == ("host:1",)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "Etcd",
        "1etcd",
        "os.path",
        "svcreg_etcd:EtcdBackend",
        "../etcd",
        "://host",
        "ETCD://host",
        "etcd://host?x",
        "etcd://host#fragment",
        "etcd://host:0",
        "etcd://host:65536",
        "etcd://host:port",
        "etcd://host:",
        "etcd://host:-1",
        "etcd://::1:2379",
        "etcd://h1:1,h2:99999",
        "etcd://ho\nst",
        "etcd://host?tls=perhaps",
        "etcd://host?verify=perhaps",
        "etcd://host?cert=a.pem",
        "etcd://host?tls=no&ca=a.pem",
        "etcd://host?timeout=soon",
        "etcd://host?timeout=0",
        "etcd://host?empty_grace=-1",
        "etcd://host?feed_idle=nan",
    ],
)
def test_malformed_setting_is_a_config_error(url: str) -> None:
    with pytest.raises(ConfigError):
        load(url)
    if url:
        with pytest.raises(ConfigError):
            load(env={"MICRO_REGISTRY": url})


@pytest.mark.parametrize("backend", [5, b"etcd", object()])
def test_backend_that_is_no_text_is_a_config_error(backend: Any) -> None:
    with pytest.raises(ConfigError, match="name or a URL"):
        load(backend)


@pytest.mark.parametrize("address", [5, [5], b"host:1", ["h:1", None]])
def test_address_that_is_no_text_is_a_config_error(address: Any) -> None:
    with pytest.raises(ConfigError):
        load("etcd", address=address)


def test_addresses_may_be_one_several_or_a_comma_separated_list() -> None:
    assert load("etcd", address="a:1").addresses == ("a:1",)
    assert load("etcd", address=" a:1 , b:2 ,").addresses == ("a:1", "b:2")
    assert load("etcd", address=["a:1", "b:2,c:3"]).addresses == ("a:1", "b:2", "c:3")
    assert load("etcd", address=()).addresses == ()


def test_scheme_of_an_address_is_taken_off_and_https_means_tls() -> None:
    config = load("consul", address="http://a:1/,consul://b:2")
    assert (config.addresses, config.tls) == (("a:1", "b:2"), None)
    config = load("consul", address="https://a:1")
    assert (config.addresses, config.tls) == (("a:1",), TLS())


def test_tls_comes_on_with_any_of_its_settings() -> None:
    assert load("etcd").tls is None
    assert load("etcd://h?tls=true").tls == TLS()
    assert load("etcd", tls=True).tls == TLS()
    assert load("etcd", tls=False).tls is None
    assert load("etcd", ca=Path("a.pem")).tls == TLS(ca="a.pem")
    assert load("etcd", verify=False).tls == TLS(verify=False)
    assert load("etcd", cert="c", key="k").tls == TLS(cert="c", key="k")
    assert load("etcd", tls=TLS(ca="a")).tls == TLS(ca="a")
    with pytest.raises(ConfigError, match="not both"):
        load("etcd", tls=TLS(), ca="a")
    env = {f"MICRO_REGISTRY_TLS_{name}": name for name in ("CA", "CERT", "KEY")}
    assert load(env=env).tls == TLS(ca="CA", cert="CERT", key="KEY")


SECRETS_IN = [
    lambda: load(f"etcd://me:{SECRET}@host:1"),
    lambda: load("etcd", username="me", password=SECRET),
    lambda: load("etcd", token=SECRET),
    lambda: load(env={"MICRO_REGISTRY": f"etcd://me:{SECRET}@host"}),
]


@pytest.mark.parametrize("make", SECRETS_IN)
def test_credentials_never_show_in_a_configuration(make: Any) -> None:
    config = make()
    assert SECRET in (config.password, config.token)
    pretty = pytest.importorskip("rich.pretty")
    shown = [repr(config), str(config), f"{config}", "%s" % (config,), repr([config])]  # noqa: UP031 - also this way
    assert SECRET not in "".join([*shown, pretty.pretty_repr(config)])
    assert "'***'" in repr(config)


@pytest.mark.parametrize(
    "make",
    [
        lambda: load(f"etcd://host?password={SECRET}"),
        lambda: load(f"etcd://host?token={SECRET}"),
        lambda: load(f"etcd://me:{SECRET}@host:99999"),
        lambda: load(f"etcd://me:{SECRET}@host?x"),
        lambda: load(f"etcd://me:{SECRET}/x@host:1"),
        lambda: load(f"etcd://me:{SECRET}#x@host:1"),
        lambda: load(f"etcd://me:{SECRET}?x=1@host:1"),
        lambda: load(f"etcd://me:{SECRET}@host?tls=perhaps"),
        lambda: load(f"me:{SECRET}@host"),
        lambda: load(f"ETCD://me:{SECRET}@host"),
        lambda: load("etcd", address=f"me:{SECRET}@host:1"),
        lambda: load("etcd", address=f"http://me:{SECRET}@host:1"),
        lambda: load("etcd", address=f"redis://me:{SECRET}@host:1"),
        lambda: load("etcd", address=f"me:{SECRET}@host:1/path"),
        lambda: load("etcd", password=[object(), SECRET]),
        lambda: load(f"etcd://me:{SECRET}@host", timeout="soon"),
        lambda: load(f"etcd://me:{SECRET}@host").parse_options(NoOptions, {"x": "1"}),
    ],
)
def test_credentials_never_show_in_an_error(make: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    error = caught.value
    assert error.__cause__ is None
    shown = "".join(traceback.format_exception_only(error)) + str(error) + repr(error)
    if error.__context__ is not None and not error.__suppress_context__:
        shown += repr(error.__context__)
    assert SECRET not in shown


class NoOptions(msgspec.Struct):
    pass


class Options(msgspec.Struct, frozen=True):
    interfaces: str = ""
    count: int = 1
    share: float = 0.5
    quick: bool = False


def test_options_are_typed_by_the_backend() -> None:
    config = load("acme://?interfaces=lo", count=7, share="0.25", quick=True, unset=None)
    assert config.parse_options(Options) == Options("lo", 7, 0.25, True)
    assert load("acme").parse_options(Options) == Options()


def test_options_come_from_the_environment_last() -> None:
    environ = {"count": "3", "share": None}
    assert load("acme").parse_options(Options, environ) == Options(count=3)
    assert load("acme", count=5).parse_options(Options, environ) == Options(count=5)


def test_lists_and_paths_become_what_a_url_would_hold() -> None:
    config = load("acme", interfaces=["lo", "eth0"], folder=Path("/a/b"), on=True, n=1.5)
    assert config.options == {"interfaces": "lo,eth0", "folder": "/a/b", "on": "true", "n": "1.5"}


@pytest.mark.parametrize("word", ["true", "True", "1", "yes", "on"])
def test_words_for_true(word: str) -> None:
    assert parse_bool("quick", word) is True
    assert load("acme", quick=word).parse_options(Options).quick is True


@pytest.mark.parametrize("word", ["false", "FALSE", "0", "no", "off"])
def test_words_for_false(word: str) -> None:
    assert parse_bool("quick", word) is False


def test_unknown_option_names_those_that_are_known() -> None:
    with pytest.raises(ConfigError, match=r"'cuont'.*count, interfaces, quick, share"):
        load("acme", cuont=1).parse_options(Options)
    with pytest.raises(ConfigError, match="it knows none"):
        load("acme", x=1).parse_options(NoOptions)


@pytest.mark.parametrize("option", [{"count": "many"}, {"share": "x"}, {"quick": "perhaps"}])
def test_option_of_the_wrong_type_is_a_config_error(option: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(option))):
        load("acme", **option).parse_options(Options)


def test_option_that_no_url_could_hold_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="'x' must be text"):
        load("acme", x=object())


@pytest.mark.parametrize(
    "value", [0, -1, math.nan, math.inf, "soon", "", None, True, [], 10**400, "-5"]
)
def test_what_is_no_positive_number_of_seconds_is_a_config_error(value: Any) -> None:
    with pytest.raises(ConfigError, match="ttl must be a"):
        parse_seconds("ttl", value)


@given(st.floats(min_value=0.001, max_value=1e9))
def test_seconds_may_be_numbers_or_text(seconds: float) -> None:
    assert parse_seconds("ttl", seconds) == parse_seconds("ttl", str(seconds)) == seconds


def test_ttl_is_ninety_seconds_and_the_interval_a_third() -> None:
    assert register_times(None, None, {}) == (90, 30)
    assert register_times(6, None, {}) == (6, 2)
    assert register_times(6, 3, {}) == (6, 3)


def test_ttl_and_interval_from_the_environment() -> None:
    env = {"MICRO_REGISTER_TTL": "12", "MICRO_REGISTER_INTERVAL": "5"}
    assert register_times(None, None, env) == (12, 5)
    assert register_times(None, 6, env) == (12, 6)
    assert register_times(30, None, env) == (30, 10)
    assert register_times(None, None, dict.fromkeys(env, "")) == (90, 30)


@pytest.mark.parametrize(
    ("ttl", "interval", "env", "message"),
    [
        (10, 6, {}, "more than half the ttl"),
        (10, 10, {}, "more than half the ttl"),
        (0.5, None, {}, "ttl must be at least 1 s"),
        (0, None, {}, "ttl must be a positive"),
        (-1, None, {}, "ttl must be a positive"),
        ("soon", None, {}, "ttl must be a number"),
        (math.inf, None, {}, "ttl must be a positive"),
        (10, 0, {}, "interval must be a positive"),
        (10, 0.001, {}, "interval must be at least"),
        (10, math.nan, {}, "interval must be a positive"),
        (None, None, {"MICRO_REGISTER_TTL": "soon"}, "MICRO_REGISTER_TTL"),
        (None, None, {"MICRO_REGISTER_TTL": "0.1"}, "MICRO_REGISTER_TTL must be at least"),
        (None, None, {"MICRO_REGISTER_INTERVAL": "x"}, "MICRO_REGISTER_INTERVAL"),
        (None, None, {"MICRO_REGISTER_INTERVAL": "60"}, "more than half the ttl"),
    ],
)
def test_bad_pair_of_ttl_and_interval_is_a_config_error(
    ttl: Any, interval: Any, env: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        register_times(ttl, interval, env)
