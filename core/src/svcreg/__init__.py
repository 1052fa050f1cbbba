"""Service registration and discovery: one API over Consul, etcd, mDNS and whatever else is installed.

`open()` for blocking code, `aio.open()` for asyncio. Names load when they are first used, so that
importing this package costs next to nothing and has no effect.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from svcreg import aio
    from svcreg.aio import AsyncRegistry
    from svcreg.config import TLS, Config
    from svcreg.errors import (
        BackendLoadError,
        BackendNotFoundError,
        ConfigError,
        InvalidServiceError,
        NoNodeError,
        PermissionDeniedError,
        ProtocolError,
        RegistrationLostError,
        RegistryClosedError,
        RegistryError,
        RegistryTimeoutError,
        RegistryUnavailableError,
        SvcregError,
    )
    from svcreg.hookspecs import Delta, Snapshot, hookimpl
    from svcreg.model import Endpoint, Event, Node, Service, Value
    from svcreg.plugins import backends
    from svcreg.registry import Registration, Registry, handle_signals, open
    from svcreg.selection import Selector

_HOMES = {
    "aio": ("AsyncRegistry", "aio"),
    "config": ("TLS", "Config"),
    "errors": (
        "BackendLoadError",
        "BackendNotFoundError",
        "ConfigError",
        "InvalidServiceError",
        "NoNodeError",
        "PermissionDeniedError",
        "ProtocolError",
        "RegistrationLostError",
        "RegistryClosedError",
        "RegistryError",
        "RegistryTimeoutError",
        "RegistryUnavailableError",
        "SvcregError",
    ),
    "hookspecs": ("Delta", "Snapshot", "hookimpl"),
    "model": ("Endpoint", "Event", "Node", "Service", "Value"),
    "plugins": ("backends",),
    "registry": ("Registration", "Registry", "handle_signals", "open"),
    "selection": ("Selector",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{_HOME_OF[name]}")
    value = module if name == _HOME_OF[name] else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
