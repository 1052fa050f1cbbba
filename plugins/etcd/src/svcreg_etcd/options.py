"""Every setting of the etcd backend, and where it is read from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from svcreg import TLS, Config
from svcreg.errors import ConfigError
from svcreg.model import join_address, split_address

DEFAULT_ADDRESS = "127.0.0.1:2379"
DEFAULT_PORT = 2379
"""etcd's port for clients, as registered with IANA."""

# What etcd's own command line tool reads.
ENDPOINTS_VARIABLE = "ETCDCTL_ENDPOINTS"
TLS_VARIABLES = {"ca": "ETCDCTL_CACERT", "cert": "ETCDCTL_CERT", "key": "ETCDCTL_KEY"}

# What go-micro reads.
USERNAME_VARIABLE = "ETCD_USERNAME"
PASSWORD_VARIABLE = "ETCD_PASSWORD"  # noqa: S105 - the name of a variable


class Options(msgspec.Struct, frozen=True):
    """What may follow the `?` of `etcd://`, or be given to `svcreg.open` by keyword.

    Attributes:
        layout: Whose keys and values are read and written: `go-micro`, `ego` or `kratos`.
        prefix: What every key begins with; by default what the layout's own programs use, such as
            `/micro/registry/`.
        password_file: A file that holds the password. It is read for every login, so that a
            password can be changed while the program runs.
    """

    layout: Literal["go-micro", "ego", "kratos"] = "go-micro"
    prefix: str = ""
    password_file: str = ""


class Settings(msgspec.Struct, frozen=True):
    """Everything that is set, from wherever it was read.

    Attributes:
        endpoints: `host:port` of each member.
        timeout: Seconds that one call of a hook may take.
        tls: None for plain text.
    """

    endpoints: tuple[str, ...]
    timeout: float
    options: Options
    tls: TLS | None = None
    username: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        return f"Settings(endpoints={self.endpoints!r}, options={self.options!r})"

    def current_password(self) -> str:
        """Return the password as it is now.

        Raises:
            ConfigError: The password file cannot be read.
        """
        if not self.options.password_file:
            return self.password or ""
        try:
            return Path(self.options.password_file).read_text().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"etcd: the password file cannot be read: {error}") from None


def load_settings(config: Config, environ: Mapping[str, str] | None = None) -> Settings:
    """Return what a configuration and the environment say; the configuration wins.

    Raises:
        ConfigError: An option is unknown or has a value that cannot be used, or a user was given
            without a password.
    """
    env = os.environ if environ is None else environ
    options = config.parse_options(Options)
    endpoints, secure = list(config.addresses), False
    if not endpoints:
        endpoints, secure = _parse_endpoints(env.get(ENDPOINTS_VARIABLE) or DEFAULT_ADDRESS)
    username = config.username or env.get(USERNAME_VARIABLE) or None
    password = config.password or env.get(PASSWORD_VARIABLE) or None
    if username and not (password or options.password_file):
        raise ConfigError(
            f"etcd: user {username!r} needs a password: give password=..., password_file=... "
            f"or set {PASSWORD_VARIABLE}"
        )
    if not username and (config.password or options.password_file):
        raise ConfigError(
            f"etcd: a password needs a user: give username=... or set {USERNAME_VARIABLE}"
        )
    return Settings(
        tuple(_with_port(endpoint) for endpoint in endpoints),
        config.timeout,
        options,
        _tls(config.tls, env, secure=secure),
        username,
        password,
    )


def _parse_endpoints(text: str) -> tuple[list[str], bool]:
    """Return addresses without their schemes, and whether one of them asked for TLS."""
    endpoints, secure = [], False
    for item in filter(None, (part.strip() for part in text.split(","))):
        scheme, separator, rest = item.partition("://")
        secure = secure or (bool(separator) and scheme == "https")
        endpoints.append((rest if separator else item).rstrip("/"))
    return endpoints, secure


def _with_port(endpoint: str) -> str:
    host, port = split_address(endpoint)
    if not host or "/" in host:
        raise ConfigError(
            f"etcd: {endpoint!r} is not host:port; write etcd://10.0.0.1:2379,10.0.0.2:2379"
        )
    return join_address(host, port or DEFAULT_PORT)


def _tls(own: TLS | None, env: Mapping[str, str], *, secure: bool) -> TLS | None:
    found = {name: env.get(variable) or None for name, variable in TLS_VARIABLES.items()}
    own_pair = own is not None and own.cert is not None
    if (found["cert"] is None) != (found["key"] is None) and not own_pair:
        raise ConfigError("etcd: set both ETCDCTL_CERT and ETCDCTL_KEY, or neither")
    if own is None:
        if not secure and not any(found.values()):
            return None
        return TLS(found["ca"], found["cert"], found["key"])
    cert, key = (own.cert, own.key) if own_pair else (found["cert"], found["key"])
    return TLS(own.ca or found["ca"], cert, key, own.verify)
