"""Every option of the mDNS backend, and where it is read from."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

import msgspec

from svcreg import Config
from svcreg.errors import ConfigError

GROUP_ADDRESS = "224.0.0.251:5353"
"""Group and port of multicast DNS over IPv4 (RFC 6762 section 3); over IPv6 it is `ff02::fb`."""

INTERFACES_VARIABLE = "MICRO_MDNS_INTERFACES"

BOTH, DNS_SD, GO_MICRO = DIALECTS = ("both", "dns-sd", "go-micro")

_DOMAIN = re.compile(r"(?=.{1,63}$)[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
"""At most 63 characters, so that most of a name is left for service and node."""


class Options(msgspec.Struct, frozen=True):
    """What may follow the `?` of `mdns://`, or be given to `svcreg.open` by keyword.

    Attributes:
        interfaces: Interface names such as `lo`, or IP addresses of this machine, separated by
            commas; without it every interface is used. Environment: `MICRO_MDNS_INTERFACES`.
        dialect: How records are written and read: `dns-sd`, the standard form; `go-micro`, as
            go-micro does; or `both`.
        domain: The domain of go-micro's names; programs of another domain are not found.
    """

    interfaces: str = ""
    dialect: str = BOTH
    domain: str = "micro"

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
            f"mdns: dialect {options.dialect!r} is unknown; use one of {', '.join(DIALECTS)}"
        )
    if not _DOMAIN.fullmatch(options.domain):
        raise ConfigError(
            f"mdns: domain {options.domain!r} is no DNS name of at most 63 letters, digits, '-' "
            "and '_' with single dots between; go-micro's is 'micro'"
        )
    other = [address for address in config.addresses if address != GROUP_ADDRESS]
    if other:
        raise ConfigError(
            f"mdns: address {other[0]!r} makes no sense, multicast has no server; leave it out, "
            "or name the registry that is there (MICRO_REGISTRY=consul, etcd, ...). "
            "To choose network interfaces use the option 'interfaces'"
        )
    return options
