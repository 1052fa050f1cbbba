"""Settings: explicit argument, then URL, then environment, then default, in one frozen `Config`."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote

import msgspec

from svcreg.errors import ConfigError
from svcreg.model import split_address

DEFAULT_BACKEND = "mdns"  # as in go-micro: works on one machine or one link with nothing installed
DEFAULT_TIMEOUT = 5.0
"""Seconds that one attempt at one registry call may take."""

DEFAULT_TTL = 90.0  # seconds; go-micro v6, server/server.go, DefaultRegisterTTL
MIN_TTL = 1.0
"""Seconds. Below it a stalled process or a slow link alone makes a healthy node flap."""

MIN_INTERVAL = 0.1
"""Seconds. Renewing more often than this only loads the registry."""

DEFAULT_EMPTY_GRACE = 30.0
"""Seconds that nodes lost while the registry itself was unwell stay listed."""

DEFAULT_FEED_IDLE = 600.0
"""Seconds after which a service that nobody asked for is no longer watched."""

_BACKEND_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_WEB_SCHEMES = ("http", "https")
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")

OptionsT = TypeVar("OptionsT", bound=msgspec.Struct)


class TLS(msgspec.Struct, frozen=True):
    """How to trust the registry, and how it is to trust us: PEM files.

    `ca` is the authority that signed the registry's certificate (default: the system's), `cert` and
    `key` are our own for mutual TLS, `verify=False` accepts any certificate.
    """

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    verify: bool = True


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a backend is told. Credentials never show in its `repr`.

    `addresses` are `host:port`, or whatever else locates this kind of registry; `timeout` is in
    seconds per attempt. `options` holds what only the backend understands; see `parse_options`.
    """

    backend: str
    addresses: tuple[str, ...] = ()
    timeout: float = DEFAULT_TIMEOUT
    tls: TLS | None = None
    username: str | None = None
    password: str | None = None
    token: str | None = None
    advertise: str | None = None
    empty_grace: float = DEFAULT_EMPTY_GRACE
    feed_idle: float = DEFAULT_FEED_IDLE
    options: Mapping[str, str] = {}

    def parse_options(
        self, cls: type[OptionsT], environ: Mapping[str, str | None] | None = None
    ) -> OptionsT:
        """Return the backend's options, typed as the fields of `cls`, a msgspec struct.

        Args:
            cls: The struct; its defaults apply to what is not set. Fields may be `str`, `int`,
                `float`, `bool` or an enumeration, with msgspec's constraints.
            environ: What the environment sets, by option name; None means not set there.

        Raises:
            ConfigError: An option has a wrong value or is unknown; names those that are known.
        """
        values: dict[str, str] = {
            name: value for name, value in (environ or {}).items() if value is not None
        }
        values.update(self.options)
        known = cls.__struct_fields__
        if unknown := sorted(set(values) - set(known)):
            raise ConfigError(
                f"{self.backend} has no option {unknown[0]!r}; it knows "
                + (", ".join(sorted(known)) or "none")
            )
        booleans = {name for name, kind in cls.__annotations__.items() if kind in (bool, "bool")}
        try:
            typed = {
                name: parse_bool(name, value) if name in booleans else value
                for name, value in values.items()
            }
            return msgspec.convert(typed, cls, strict=False)
        except msgspec.ValidationError as error:
            raise ConfigError(f"{self.backend}: wrong option: {error}") from None

    def __repr__(self) -> str:
        return f"Config({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:  # what rich prints instead of the repr
        values = ((name, getattr(self, name)) for name in self.__struct_fields__)
        return [
            (name, "***" if name in _SECRETS and value is not None else value)
            for name, value in values
        ]


_SECRETS = ("password", "token")
_TEXTS = ("username", *_SECRETS, "advertise")
_DURATIONS = ("timeout", "empty_grace", "feed_idle")
_TLS_OPTIONS = ("ca", "cert", "key", "verify")
_VARIABLES = {"advertise": "MICRO_ADVERTISE"}
_TLS_VARIABLES = {
    "ca": "MICRO_REGISTRY_TLS_CA",
    "cert": "MICRO_REGISTRY_TLS_CERT",
    "key": "MICRO_REGISTRY_TLS_KEY",
}


def load_config(
    backend: str | None = None,
    *,
    address: str | Iterable[str] | None = None,
    timeout: float | None = None,
    options: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Config:
    """Work out which registry is meant and how to reach it.

    Args:
        backend: A backend name or a URL; default `MICRO_REGISTRY`, then `mdns`.
        address: One or several `host:port`, or a comma-separated string of them.
        timeout: Seconds per attempt; default that of the URL, then 5.
        options: Everything else that was given by keyword.
        environ: Stands in for `os.environ`.

    Raises:
        ConfigError: A setting is malformed; says which and what to write instead.
    """
    env = os.environ if environ is None else environ
    chosen = env.get("MICRO_REGISTRY") or DEFAULT_BACKEND
    given = chosen if backend is None else backend
    if not isinstance(given, str):
        raise ConfigError(f"the registry must be a name or a URL, not {type(given).__name__}")
    url = _parse_url(given)
    # MICRO_REGISTRY_ADDRESS belongs to MICRO_REGISTRY: another backend's address is of no use.
    env_applies = not env.get("MICRO_REGISTRY") or _scheme(chosen) == url.backend
    settings: dict[str, Any] = _environment(env, _TLS_VARIABLES) if env_applies else {}
    settings.update(_environment(env, _VARIABLES))
    settings.update(url.settings)
    settings.update({name: value for name, value in (options or {}).items() if value is not None})
    if timeout is not None:
        settings["timeout"] = timeout
    if not isinstance(address, (str, Iterable, type(None))):
        raise ConfigError(f"address must be text or a list of it, not {type(address).__name__}")
    explicit = [address] if isinstance(address, str) else list(address or ())
    addresses, secure = _parse_addresses(
        url.backend,
        explicit
        or url.addresses
        or ([env.get("MICRO_REGISTRY_ADDRESS", "")] if env_applies else []),
    )
    core: dict[str, Any] = {
        name: _text(name, settings.pop(name)) for name in _TEXTS if name in settings
    }
    core |= {
        name: parse_seconds(name, settings.pop(name)) for name in _DURATIONS if name in settings
    }
    tls = _parse_tls(settings, secure=secure)
    others = {name: _text(name, value) for name, value in settings.items()}
    return Config(backend=url.backend, addresses=addresses, tls=tls, options=others, **core)


def check_backend_name(name: str) -> str:
    """Return a well-formed backend name.

    Raises:
        ConfigError: It is not lower-case letters, digits, `_` and `-`, beginning with a letter.
    """
    if not _BACKEND_NAME.fullmatch(name):
        shown = repr(name[:80]) if "@" not in name else "what is given"  # it may hold a password
        raise ConfigError(
            f"{shown} is not a backend name or URL; write for example 'consul' or "
            "'etcd://10.0.0.1:2379' (MICRO_REGISTRY or the argument)"
        )
    return name


def parse_seconds(name: str, value: object, *, minimum: float = 0.0) -> float:
    """Return a positive number of seconds, of at least `minimum`.

    Raises:
        ConfigError: It is not a number, not finite, not positive, or below the minimum.
    """
    try:
        seconds = float(value)  # type: ignore[arg-type] # whatever it is, float() says
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"{name} must be a number of seconds, not {value!r}") from None
    if isinstance(value, bool) or not math.isfinite(seconds) or seconds <= 0:
        raise ConfigError(f"{name} must be a positive number of seconds, not {value!r}")
    if seconds < minimum:
        raise ConfigError(f"{name} must be at least {minimum:g} s, not {seconds:g}")
    return seconds


def parse_bool(name: str, value: str) -> bool:
    """Return what `true`, `1`, `yes`, `on` and their opposites mean.

    Raises:
        ConfigError: It is none of them.
    """
    word = value.lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise ConfigError(f"{name} must be true or false, not {value!r}")


def register_times(
    ttl: float | None, interval: float | None, environ: Mapping[str, str] | None = None
) -> tuple[float, float]:
    """Return TTL and renewal interval in seconds, from arguments, environment and defaults.

    Raises:
        ConfigError: One is not a positive number, the TTL is below `MIN_TTL`, or the interval is
            above half the TTL, where one late renewal would already unlist a healthy node.
    """
    env = os.environ if environ is None else environ
    if ttl is None:
        ttl = parse_seconds(
            "MICRO_REGISTER_TTL", env.get("MICRO_REGISTER_TTL") or DEFAULT_TTL, minimum=MIN_TTL
        )
        if interval is None and env.get("MICRO_REGISTER_INTERVAL"):
            interval = parse_seconds("MICRO_REGISTER_INTERVAL", env["MICRO_REGISTER_INTERVAL"])
    ttl = parse_seconds("ttl", ttl, minimum=MIN_TTL)
    if interval is None:
        interval = ttl / 3
    interval = parse_seconds("interval", interval, minimum=MIN_INTERVAL)
    if interval > ttl / 2:
        raise ConfigError(
            f"interval {interval:g} s is more than half the ttl of {ttl:g} s: one late renewal "
            f"would unlist a healthy node; use at most {ttl / 2:g} s, or leave it out for "
            f"{ttl / 3:g} s"
        )
    return ttl, interval


class _URL(msgspec.Struct):
    backend: str
    addresses: list[str] = []
    settings: dict[str, str] = {}


def _scheme(text: str) -> str:
    return text.partition("://")[0]


def _parse_url(text: str) -> _URL:
    if "://" not in text:
        return _URL(check_backend_name(text))
    # By hand: urlsplit takes one host only, and differs between versions when that is several.
    backend = check_backend_name(_scheme(text))
    location, _, query = text.partition("://")[2].partition("?")
    authority, slash, rest = location.partition("/")
    userinfo, at, netloc = authority.rpartition("@")
    if "#" in text or (authority and not at and "@" in rest + query):
        raise ConfigError(
            f"the {backend} URL has a '/', '?' or '#' where none may be; in a password write them "
            "as %2F, %3F and %23, and an '@' elsewhere as %40"
        )
    try:
        settings = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
    except ValueError:
        raise ConfigError(
            f"the {backend} URL is malformed; write {backend}://host:port?option=value"
        ) from None
    if secrets := sorted(set(_SECRETS) & set(settings)):
        raise ConfigError(
            f"the {backend} URL has {secrets[0]!r} in its query, where it ends up in logs; pass it "
            f"as an argument, as {backend}://user:password@host, or in the backend's own variable"
        )
    if at:
        username, _, password = userinfo.partition(":")
        settings["username"] = unquote(username)
        if password:
            settings["password"] = unquote(password)
    path = unquote(slash + rest) if rest else ""
    return _URL(backend, [netloc + path] if netloc or path else [], settings)


def _parse_addresses(backend: str, given: Iterable[str]) -> tuple[tuple[str, ...], bool]:
    """Return the addresses without their schemes, and whether one of them asked for TLS."""
    addresses: list[str] = []
    secure = False
    for text in given:
        if not isinstance(text, str):
            raise ConfigError(f"a registry address must be a string, not {type(text).__name__}")
        parts = [text] if text.startswith("/") else text.split(",")  # a file's name may hold any
        for item in filter(None, (part.strip() for part in parts)):
            scheme, separator, rest = item.partition("://")
            if separator and scheme in (*_WEB_SCHEMES, backend):
                secure = secure or scheme == "https"
                item = rest.rstrip("/")
            if "@" in item.partition("://")[2].partition("/")[0] or "@" in item.partition("/")[0]:
                raise ConfigError(
                    "a registry address may not hold credentials; "
                    "pass username and password as arguments"
                )
            if not item.isprintable():
                raise ConfigError(f"registry address {item!r} holds control characters")
            no_port = ":" not in item or "/" in item or (item[0], item[-1]) == ("[", "]")
            if not no_port and split_address(item)[1] not in range(1, 65536):
                raise ConfigError(
                    f"registry address {item!r} is not host:port with a port from 1 to 65535; "
                    "an IPv6 host stands in brackets"
                )
            addresses.append(item)
    return tuple(addresses), secure


def _parse_tls(settings: dict[str, Any], *, secure: bool) -> TLS | None:
    """Take the TLS settings out of `settings`."""
    found = {name: settings.pop(name) for name in _TLS_OPTIONS if name in settings}
    tls = settings.pop("tls", None)
    if isinstance(tls, TLS):
        if found:
            raise ConfigError(f"give either tls=TLS(...) or {', '.join(found)}, not both")
        return tls
    if tls is not None and not parse_bool("tls", _text("tls", tls)):
        if found:
            raise ConfigError(
                f"tls is off, so {', '.join(found)} can have no effect; leave one out"
            )
        return None
    if not found and tls is None and not secure:
        return None
    verify = parse_bool("verify", _text("verify", found.pop("verify", "true")))
    files = {name: _text(name, value) for name, value in found.items()}
    if ("cert" in files) != ("key" in files):
        raise ConfigError("a client certificate needs both cert and key")
    return TLS(**files, verify=verify)


def _environment(env: Mapping[str, str], variables: Mapping[str, str]) -> dict[str, str]:
    return {name: env[variable] for name, variable in variables.items() if env.get(variable)}


def _text(name: str, value: object) -> str:
    """Return an option given by keyword as the text that a URL would hold."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float, os.PathLike)):
        return os.fspath(value) if isinstance(value, os.PathLike) else str(value)
    if isinstance(value, (list, tuple)):
        return ",".join(_text(name, item) for item in value)
    raise ConfigError(
        f"option {name!r} must be text, a number or a list, not {type(value).__name__}"
    )
