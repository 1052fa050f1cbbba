"""Every option of the mDNS backend, and where it is read from."""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec

from svcreg import Config
from svcreg.errors import ConfigError

GROUP_ADDRESS = "224.0.0.251:5353"
"""Group and port of multicast DNS over IPv4 (RFC 6762 section 3); over IPv6 it is `ff02::fb`."""

INTERFACES_VARIABLE = "MICRO_MDNS_INTERFACES"

DIALECTS = ("dns-sd",)


class Options(msgspec.Struct, frozen=True):
    """What may follow the `?` of `mdns://`, or be given to `svcreg.open` by keyword.

    Attributes:
        interfaces: Interface names such as `lo`, or IP addresses of this machine, separated by
            commas; without it every interface is used. Environment: `MICRO_MDNS_INTERFACES`.
        dialect: How records are written: `dns-sd`, the standard form.
    """

    interfaces: str = ""
    dialect: str = "dns-sd"

    def interface_names(self) -> tuple[str, ...]:
        """Return the chosen interfaces; empty means all of them."""
        return tuple(filter(None, (part.strip() for part in self.interfaces.split(","))))


def load_options(config: Config, environ: Mapping[str, str] | None = None) -> Options:
    """Return the options of a configuration; arguments win over the environment.

    Raises:
        ConfigError: An option is unknown or has a value that cannot be used, or an address was
            given, of which multicast has none.
    """
    env = os.environ if environ is None else environ
    options = config.parse_options(Options, {"interfaces": env.get(INTERFACES_VARIABLE) or None})
    if options.dialect not in DIALECTS:
        raise ConfigError(
            f"mdns: dialect {options.dialect!r} is not one this version speaks; "
            f"it speaks {', '.join(DIALECTS)}"
        )
    other = [address for address in config.addresses if address != GROUP_ADDRESS]
    if other:
        raise ConfigError(
            f"mdns: address {other[0]!r} makes no sense, multicast has no server; leave it out, "
            "or name the registry that is there (MICRO_REGISTRY=consul, etcd, ...). "
            "To choose network interfaces use the option 'interfaces'"
        )
    return options
