"""Every option of the Consul backend: its unit, its default and where it is read from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple

import msgspec

from svcreg import TLS, Config
from svcreg.config import parse_bool
from svcreg.errors import ConfigError
from svcreg.model import join_address, split_address

DEFAULT_PORT = 8500  # https://developer.hashicorp.com/consul/docs/install/ports
DEFAULT_ADDRESS = f"127.0.0.1:{DEFAULT_PORT}"

UNIX_SCHEME = "unix://"

Seconds = Annotated[float, msgspec.Meta(gt=0)]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What may follow the `?` of `consul://`, or be given to `svcreg.open` by keyword.

    Attributes:
        check: Who judges whether a node is alive: `ttl`, our renewals; `tcp`, `http` or `grpc`, the
            Consul agent, which then connects to the node's address itself.
        check_interval: Seconds between two looks by the agent; not for `ttl`.
        check_timeout: Seconds that one look by the agent may take; not for `ttl`.
        check_path: Path that an `http` check asks for, or service that a `grpc` check asks about.
        connect: Register as Connect native: the program speaks mutual TLS itself.
        passing_only: Leave out nodes of which a check warns.
        stale: Let any server answer reads, not only the leader: quicker, a little behind.
        near: Consul node to sort by round trip from; `_agent` for the agent that is asked.
        dc: Datacentres to read from, separated by commas; where one node id occurs in several, the
            first counts. Default: the agent's own, which is also where registrations go.
        namespace: Consul Enterprise. Environment: `CONSUL_NAMESPACE`.
        partition: Consul Enterprise. Environment: `CONSUL_PARTITION`.
        token_file: File that holds the ACL token, read again when it changes. Environment:
            `CONSUL_HTTP_TOKEN_FILE`.
        polls: Services watched by a long poll each; further ones share one watch of the catalogue.
    """

    check: Literal["ttl", "tcp", "http", "grpc"] = "ttl"
    check_interval: Seconds = 10.0
    check_timeout: Seconds = 5.0
    check_path: str = ""
    connect: bool = False
    passing_only: bool = False
    stale: bool = False
    near: str = ""
    dc: str = ""
    namespace: str = ""
    partition: str = ""
    token_file: str = ""
    # An agent accepts 200 connections per client address (limits.http_max_conns_per_client); half
    # of them is left to other programs, and of the rest most to everything that is no long poll.
    polls: Annotated[int, msgspec.Meta(ge=0, le=100)] = 32

    @property
    def datacentres(self) -> tuple[str, ...]:
        """The datacentres to read from; the agent's own is empty."""
        return tuple(filter(None, (part.strip() for part in self.dc.split(",")))) or ("",)


class Address(NamedTuple):
    """One agent: how it is called in messages, and how it is reached."""

    label: str
    base_url: str
    socket_path: str | None


class Settings(NamedTuple):
    """Everything the backend works with. Its `repr` would show the token, so it has none."""

    options: Options
    addresses: tuple[Address, ...]
    timeout: float
    tls: TLS | None
    token: str | None
    token_file: str | None
    user: tuple[str, str] | None

    def __repr__(self) -> str:
        return f"Settings({', '.join(address.label for address in self.addresses)})"


def load_settings(config: Config, environ: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of a configuration; arguments win over the environment.

    Raises:
        ConfigError: An option or a variable is unknown or has a value that cannot be used.
    """
    env = os.environ if environ is None else environ
    options = config.parse_options(
        Options,
        {
            "namespace": env.get("CONSUL_NAMESPACE") or None,
            "partition": env.get("CONSUL_PARTITION") or None,
        },
    )
    given = config.addresses or tuple(_split(env.get("CONSUL_HTTP_ADDR", "")))
    tls = _load_tls(config, env, given)
    token, token_file = config.token, None
    if not token:
        # As Consul's own tools have it (api.NewClient), a token file wins over a token.
        token_file = options.token_file or env.get("CONSUL_HTTP_TOKEN_FILE") or None
        token = None if token_file else env.get("CONSUL_HTTP_TOKEN") or None
    if token and not (token.isascii() and token.isprintable()):
        raise ConfigError("consul: the token holds characters that no HTTP header may hold")
    return Settings(
        options=options,
        addresses=tuple(
            parse_address(text, secure=tls is not None) for text in given or (DEFAULT_ADDRESS,)
        ),
        timeout=config.timeout,
        tls=tls,
        token=token,
        token_file=token_file,
        user=(config.username, config.password or "") if config.username else None,
    )


def parse_address(text: str, *, secure: bool) -> Address:
    """Return where an agent is: `host`, `host:port`, or the path of a unix socket.

    Raises:
        ConfigError: It is none of them.
    """
    path = text.removeprefix(UNIX_SCHEME)
    if path != text or text.startswith("/"):
        if not path.startswith("/"):
            raise ConfigError(
                f"consul: {text!r} names no absolute path; write unix:///path/to.sock"
            )
        return Address(UNIX_SCHEME + path, "http://localhost", path)
    scheme, separator, rest = text.partition("://")
    if separator and scheme not in ("http", "https"):
        raise ConfigError(f"consul: {text!r} is not an address; write host:port or unix:///path")
    host, port = split_address(rest.rstrip("/") if separator else text)
    if not host or "/" in host or "@" in host or "?" in host:
        raise ConfigError(f"consul: address {text!r} is not host:port")
    label = join_address(host, port or DEFAULT_PORT)
    return Address(label, f"{'https' if secure else 'http'}://{label}", None)


def _load_tls(config: Config, env: Mapping[str, str], addresses: tuple[str, ...]) -> TLS | None:
    """Return how to use TLS, or None; what was given as argument or URL is only completed."""
    wanted = env.get("CONSUL_HTTP_SSL")
    is_wanted = parse_bool("CONSUL_HTTP_SSL", wanted) if wanted else False
    is_wanted = is_wanted or any(address.startswith("https://") for address in addresses)
    if config.tls is None and not is_wanted:
        return None
    tls = config.tls or TLS()
    verify = tls.verify
    if tls == TLS() and env.get("CONSUL_HTTP_SSL_VERIFY"):
        verify = parse_bool("CONSUL_HTTP_SSL_VERIFY", env["CONSUL_HTTP_SSL_VERIFY"])
    cert, key = tls.cert, tls.key
    if cert is None and key is None:
        cert, key = env.get("CONSUL_CLIENT_CERT") or None, env.get("CONSUL_CLIENT_KEY") or None
    if (cert is None) != (key is None):
        raise ConfigError(
            "consul: a client certificate needs both cert and key "
            "(CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY)"
        )
    return TLS(ca=tls.ca or env.get("CONSUL_CACERT") or None, cert=cert, key=key, verify=verify)


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
