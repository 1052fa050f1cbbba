"""The options that every command takes: which registry, and how to print."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

import svcreg
from svcreg.config import DEFAULT_TIMEOUT, Config, load_config

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Settings:
    """What the options say; None is "not given".

    `registry` is a backend name or a URL, `registry_address` the values of that option, `timeout`
    seconds per call, `output` `table` or `json`.
    """

    registry: str | None = None
    registry_address: tuple[str, ...] = ()
    timeout: float | None = None
    output: str | None = None

    @property
    def is_json(self) -> bool:
        """Whether JSON was asked for."""
        return self.output == "json"

    def open(self) -> svcreg.Registry:
        """Open the registry that these options and the environment name."""
        return svcreg.open(
            self.registry,
            address=self.registry_address or None,
            timeout=self.timeout,
        )

    def config(self) -> Config:
        """Return what `open` would tell the backend."""
        return load_config(
            self.registry, address=self.registry_address or None, timeout=self.timeout
        )


def _keep(ctx: click.Context, parameter: click.Parameter, value: object) -> None:
    """Store an option that was given; the command's are read after the group's, so they win."""
    if value is not None and value != ():
        setattr(ctx.ensure_object(Settings), str(parameter.name), value)


_OPTIONS = (
    click.option(
        "--registry",
        metavar="NAME|URL",
        expose_value=False,
        callback=_keep,
        help="Registry to use.  [default: $MICRO_REGISTRY, else mdns]",
    ),
    click.option(
        "--registry-address",
        metavar="HOST:PORT,...",
        multiple=True,
        expose_value=False,
        callback=_keep,
        help="Where it is.  [default: $MICRO_REGISTRY_ADDRESS, else the registry's own]",
    ),
    click.option(
        "--timeout",
        metavar="SECONDS",
        type=float,
        expose_value=False,
        callback=_keep,
        help=f"Longest wait for one answer of the registry.  [default: {DEFAULT_TIMEOUT:g}]",
    ),
    click.option(
        "--output",
        type=click.Choice(["table", "json"]),
        expose_value=False,
        callback=_keep,
        help="How to print: for people or for programs.",
    ),
)


def common_options(function: F) -> F:
    """Add the options that every command takes; they end up in the `Settings`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


pass_settings = click.make_pass_decorator(Settings, ensure=True)
