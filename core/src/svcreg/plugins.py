"""Find the installed backends, import the chosen one only, build it and check it.

A backend is an entry point of the group `svcreg.backends`. Nothing else can be imported: the
environment chooses among what is installed, by a name, never by a dotted path.
"""

from __future__ import annotations

import difflib
import inspect
import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import importlib_metadata
import msgspec
import pluggy

from svcreg.config import Config, check_backend_name
from svcreg.errors import BackendLoadError, BackendNotFoundError, SvcregError
from svcreg.hookspecs import PROJECT, REQUIRED_HOOKS, BackendSpec, ObserverSpec

BACKENDS = "svcreg.backends"
EXTENSIONS = "svcreg.extensions"

_KNOWN_ELSEWHERE = ("consul", "etcd", "mdns")
"""Backends of this project with a distribution of their own, for when one is missing."""

_log = logging.getLogger("svcreg.plugins")


class BackendInfo(msgspec.Struct, frozen=True):
    """An installed backend: who provides it and where, as its entry point says."""

    name: str
    distribution: str
    version: str
    entry_point: str


def backends() -> Mapping[str, BackendInfo]:
    """Return what is installed, by backend name, importing none of it.

    This is go-micro's `DefaultRegistries`, filled by whatever is installed.
    """
    found = {name: _describe(points[0]) for name, points in _entry_points(BACKENDS).items()}
    return MappingProxyType(dict(sorted(found.items())))


def load_factory(name: str) -> Any:
    """Import one backend and return what its entry point names: a class, function or module.

    Raises:
        BackendNotFoundError: Nothing installed provides it; says what is there and what to install.
        BackendLoadError: Two distributions provide it, or importing it failed.
    """
    points = _entry_points(BACKENDS).get(check_backend_name(name))
    if not points:
        raise BackendNotFoundError(_not_found(name))
    if len(points) > 1:
        names = " and ".join(sorted(_describe(point).distribution for point in points))
        raise BackendLoadError(f"backend {name!r} is provided by {names}; uninstall all but one")
    try:
        return points[0].load()
    except (Exception, SystemExit) as error:
        info = _describe(points[0])
        raise BackendLoadError(
            f"backend {name!r} ({info.distribution} {info.version}, {info.entry_point}) failed to "
            f"import: {type(error).__name__}: {error}"
        ) from error


def build_backend(factory: Any, config: Config) -> pluggy.PluginManager:
    """Build one backend instance and return the plugin manager that holds just it.

    Raises:
        ConfigError: The backend refused its configuration.
        BackendLoadError: It could not be built, or it breaks the hook contract; says how.
    """
    if inspect.ismodule(factory):
        instance: object = factory
    elif not callable(factory):
        raise BackendLoadError(
            f"backend {config.backend!r}: its entry point names a {type(factory).__name__}; "
            "it must name a class or function that takes a Config, or a module with hooks"
        )
    else:
        instance = _instantiate(factory, config)
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(BackendSpec)
    _register(manager, instance, f"backend {config.backend!r}", BackendSpec, config.backend)
    for hook in REQUIRED_HOOKS:
        if not getattr(manager.hook, hook).get_hookimpls():
            raise BackendLoadError(
                f"backend {config.backend!r} lacks {hook}, which every backend needs"
            )
    return manager


def load_observers() -> pluggy.PluginManager | None:
    """Return a plugin manager with every installed observer, or None where there is none.

    An observer that fails to load is left out with a warning: watching must not stop the work.
    """
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(ObserverSpec)
    for name, points in _entry_points(EXTENSIONS).items():
        for point in points:
            try:
                loaded = point.load()
                is_factory = inspect.isclass(loaded) or inspect.isfunction(loaded)
                observer = loaded() if is_factory else loaded
                _register(manager, observer, f"extension {name!r}", ObserverSpec, point.value)
            except Exception as error:
                _log.warning("extension %s is left out: %s", name, error)
    return manager if manager.get_plugins() else None


def _entry_points(group: str) -> dict[str, list[importlib_metadata.EntryPoint]]:
    """Return the entry points of a group by name; the same one found twice counts once."""
    found: dict[str, list[importlib_metadata.EntryPoint]] = {}
    for point in importlib_metadata.entry_points(group=group):
        same_name = found.setdefault(point.name, [])
        if _describe(point) not in map(_describe, same_name):
            same_name.append(point)
    return found


def _describe(point: importlib_metadata.EntryPoint) -> BackendInfo:
    try:
        name, version = (point.dist.name, point.dist.version) if point.dist else ("", "")
    except Exception:  # importlib_metadata raises this or that when METADATA is missing or damaged
        name, version = "a damaged distribution", ""
    return BackendInfo(point.name, name, version, point.value)


def _not_found(name: str) -> str:
    installed = sorted(_entry_points(BACKENDS))
    message = f"no backend {name!r} is installed; installed: {', '.join(installed) or 'none'}. "
    if name in _KNOWN_ELSEWHERE:
        return message + f"Install it with: pip install svcreg-{name}"
    if near := difflib.get_close_matches(name, {*installed, *_KNOWN_ELSEWHERE}, n=1):
        hint = f"Did you mean {near[0]!r}?"
        return (
            message
            + hint
            + ("" if near[0] in installed else f" Then: pip install svcreg-{near[0]}")
        )
    return message + f"If somebody publishes it, then probably as: pip install svcreg-{name}"


def _instantiate(factory: Callable[[Config], object], config: Config) -> object:
    try:
        return factory(config)
    except SvcregError:
        raise
    except Exception as error:
        raise BackendLoadError(
            f"backend {config.backend!r} could not be built: {type(error).__name__}: {error}"
        ) from error


def _register(
    manager: pluggy.PluginManager,
    instance: object,
    name: str,
    spec: type,
    plugin_name: str | None = None,
) -> None:
    """Register a plugin, turning every breach of the contract into an error that explains it."""
    hooks = [attribute for attribute in dir(spec) if attribute.startswith(f"{PROJECT}_")]
    for attribute in dir(instance):
        value = getattr(instance, attribute, None)
        marked = inspect.isroutine(value) and hasattr(value, f"{PROJECT}_impl")
        if marked or (attribute.startswith(f"{PROJECT}_") and callable(value)):
            _check_hook(attribute, value, name, spec, hooks, marked=marked)
    try:
        manager.register(instance, plugin_name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        manager.unregister(instance)  # or every later check_pending would fail for it
        raise BackendLoadError(f"{name} breaks the contract: {error}") from None


def _check_hook(
    attribute: str, function: Any, name: str, spec: type, hooks: list[str], *, marked: bool
) -> None:
    if attribute not in hooks:
        near = difflib.get_close_matches(attribute, hooks, n=1)
        hint = f"did you mean {near[0]}?" if near else f"hooks are {', '.join(hooks)}"
        raise BackendLoadError(f"{name} has an unknown hook {attribute}; {hint}")
    if not marked:
        raise BackendLoadError(
            f"{name}: {attribute} is not marked with @svcreg.hookimpl, so it would never be called"
        )
    allowed = [
        parameter
        for parameter in inspect.signature(getattr(spec, attribute)).parameters
        if parameter != "self"
    ]
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name not in allowed:
            near = difflib.get_close_matches(parameter.name, allowed, n=1)
            raise BackendLoadError(
                f"{name}: {attribute} takes {parameter.name!r}, which is no argument of that hook; "
                + (f"did you mean {near[0]!r}? " if near else "")
                + (f"It may take {', '.join(allowed)}" if allowed else "It takes none")
            )
        if parameter.default is not parameter.empty or parameter.kind is parameter.KEYWORD_ONLY:
            raise BackendLoadError(  # pluggy fills in positional arguments without a default only
                f"{name}: {attribute} would never be given {parameter.name!r}; "
                "take it as a plain argument without a default"
            )
