"""`svcreg backends`: what is installed, which one is selected, and why."""

from __future__ import annotations

import os
from importlib.metadata import EntryPoint
from typing import Any

import click
import msgspec

import svcreg
from svcreg.cli.output import write_json, write_line, write_table
from svcreg.cli.settings import Settings, common_options, pass_settings


class Backend(msgspec.Struct, frozen=True):
    """One installed backend, as `svcreg backends --output json` shows it."""

    name: str
    distribution: str
    version: str
    entry_point: str
    default_address: str | None
    capabilities: list[str]
    error: str | None
    selected: bool
    reason: str | None


@click.command("backends")
@common_options
@pass_settings
def command(settings: Settings) -> None:
    """Show the installed backends, which one is selected, and why.

    JSON is an array of objects.
    """
    selected, reason = settings.config().backend, selection_reason(settings)
    found = [describe(name, reason if name == selected else None) for name in svcreg.backends()]
    if settings.is_json:
        write_json(msgspec.json.encode(found))
    else:
        _show(found)
    if not any(backend.selected for backend in found):
        try:
            settings.open().close()
        except svcreg.ConfigError as error:  # says what is missing and how to install it
            click.echo(f"selected: {selected} ({reason}), but {error}", err=True)


def selection_reason(settings: Settings) -> str:
    """Return what decided which backend is used."""
    if settings.registry is not None:
        return "argument"
    return "MICRO_REGISTRY" if os.environ.get("MICRO_REGISTRY") else "default"


def describe(name: str, reason: str | None) -> Backend:
    """Return what is known of an installed backend, importing it; `reason` is why it is chosen."""
    info = svcreg.backends()[name]
    address: object = None
    capabilities: list[str] = []
    error = None
    try:
        factory: Any = EntryPoint(name, info.entry_point, "svcreg.backends").load()
        address = getattr(factory, "default_address", None)
        capabilities = sorted(map(str, getattr(factory, "capabilities", ())))
    except (Exception, SystemExit) as problem:
        error = f"{type(problem).__name__}: {problem}"
    return Backend(
        name,
        info.distribution,
        info.version,
        info.entry_point,
        default_address=address if isinstance(address, str) else None,
        capabilities=capabilities,
        error=error,
        selected=reason is not None,
        reason=reason,
    )


def _show(found: list[Backend]) -> None:
    write_table(
        ("", "BACKEND", "DISTRIBUTION", "VERSION", "DEFAULT ADDRESS", "CAPABILITIES"),
        [
            (
                "*" if backend.selected else "",
                backend.name,
                backend.distribution,
                backend.version,
                backend.default_address or "-",
                ", ".join(backend.capabilities) or "-",
            )
            for backend in found
        ],
    )
    for backend in found:
        if backend.selected:
            write_line(f"selected: {backend.name} ({backend.reason})", "bold")
    for backend in found:
        if backend.error:
            write_line(f"{backend.name} cannot be imported: {backend.error}", "red")
