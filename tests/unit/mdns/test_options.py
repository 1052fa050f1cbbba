"""Options of the mDNS backend."""

from __future__ import annotations

import pytest

from svcreg import Config, ConfigError
from svcreg_mdns.options import load_options


def config(*addresses: str, **options: str) -> Config:
    return Config(backend="mdns", addresses=addresses, options=options)


def test_every_interface_is_used_unless_some_are_named() -> None:
    assert load_options(config(), {}).interface_names() == ()
    chosen = load_options(config(interfaces="lo, 10.0.0.5,,eth0 "), {})
    assert chosen.interface_names() == ("lo", "10.0.0.5", "eth0")


def test_the_argument_wins_over_the_environment() -> None:
    environ = {"MICRO_MDNS_INTERFACES": "eth0"}
    assert load_options(config(), environ).interface_names() == ("eth0",)
    assert load_options(config(interfaces="lo"), environ).interface_names() == ("lo",)
    assert load_options(config(), {"MICRO_MDNS_INTERFACES": ""}).interface_names() == ()


def test_an_unknown_option_is_refused_with_those_known() -> None:
    with pytest.raises(
        ConfigError, match=r"no option 'interface'; it knows dialect, domain, interfaces"
    ):
        load_options(config(interface="lo"), {})


def test_an_unknown_dialect_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"dialect 'klingon'.*both, dns-sd, go-micro"):
        load_options(config(dialect="klingon"), {})


def test_both_dialects_are_spoken_unless_one_is_chosen() -> None:
    assert load_options(config(), {}).dialect == "both"
    for dialect in ("both", "dns-sd", "go-micro"):
        assert load_options(config(dialect=dialect), {}).dialect == dialect


def test_a_domain_that_is_no_dns_name_is_refused() -> None:
    assert load_options(config(), {}).domain == "micro"
    assert load_options(config(domain="dev.corp_1-x"), {}).domain == "dev.corp_1-x"
    for domain in ("", ".", ".micro", "micro.", "a..b", "a b", "x" * 64, "\u00e4"):
        with pytest.raises(ConfigError, match=r"domain .* go-micro's is 'micro'"):
            load_options(config(domain=domain), {})


def test_an_address_is_refused_with_what_to_do_instead() -> None:
    with pytest.raises(ConfigError, match=r"'10\.0\.0\.1:2379'.*MICRO_REGISTRY=.*'interfaces'"):
        load_options(config("10.0.0.1:2379"), {})
    load_options(config("224.0.0.251:5353"), {})
