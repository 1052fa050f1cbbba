"""Service registration and discovery: one API over Consul, etcd, mDNS and others.

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

__all__ = [
    "TLS",
    "AsyncRegistry",
    "BackendLoadError",
    "BackendNotFoundError",
    "Config",
    "ConfigError",
    "Delta",
    "Endpoint",
    "Event",
    "InvalidServiceError",
    "NoNodeError",
    "Node",
    "PermissionDeniedError",
    "ProtocolError",
    "Registration",
    "RegistrationLostError",
    "Registry",
    "RegistryClosedError",
    "RegistryError",
    "RegistryTimeoutError",
    "RegistryUnavailableError",
    "Selector",
    "Service",
    "Snapshot",
    "SvcregError",
    "Value",
    "aio",
    "backends",
    "handle_signals",
    "hookimpl",
    "open",
]

_HOME_OF = {
    "AsyncRegistry": "aio",
    "BackendLoadError": "errors",
    "BackendNotFoundError": "errors",
    "Config": "config",
    "ConfigError": "errors",
    "Delta": "hookspecs",
    "Endpoint": "model",
    "Event": "model",
    "InvalidServiceError": "errors",
    "NoNodeError": "errors",
    "Node": "model",
    "PermissionDeniedError": "errors",
    "ProtocolError": "errors",
    "Registration": "registry",
    "RegistrationLostError": "errors",
    "Registry": "registry",
    "RegistryClosedError": "errors",
    "RegistryError": "errors",
    "RegistryTimeoutError": "errors",
    "RegistryUnavailableError": "errors",
    "Selector": "selection",
    "Service": "model",
    "Snapshot": "hookspecs",
    "SvcregError": "errors",
    "TLS": "config",
    "Value": "model",
    "aio": "aio",
    "backends": "plugins",
    "handle_signals": "registry",
    "hookimpl": "hookspecs",
    "open": "registry",
}


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{_HOME_OF[name]}")
    value = module if name == _HOME_OF[name] else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
