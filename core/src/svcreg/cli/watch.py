"""`svcreg watch`: what is there, and every change of it."""

from __future__ import annotations

import sys
import time

import click

import svcreg
from svcreg import Event, codec
from svcreg.cli.errors import show_warnings
from svcreg.cli.output import console, format_metadata, write_json, write_line
from svcreg.cli.settings import Settings, common_options, pass_settings
from svcreg.cli.signals import call_when_output_closes, until_stopped

_STYLES = {"create": "green", "update": "yellow", "delete": "red"}


@click.command("watch")
@click.argument("name", required=False)
@common_options
@pass_settings
def command(settings: Settings, name: str | None) -> None:
    """Watch the service NAME, or every service, until interrupted.

    Begins with a `create` for every node that is already there. On a terminal this is a live view;
    in a pipe, or with --output json, it is one JSON event per line: action, service, timestamp.
    With --output table in a pipe it is one line of text per node.
    """
    with until_stopped(), settings.open() as registry:
        # A watch waits for a registry that is away; whoever starts one wants to know that it is.
        if name is None:
            registry.list()
        else:
            registry.get(name)
        show_warnings()
        if settings.is_json or (settings.output is None and not sys.stdout.isatty()):
            _write_events(registry, name, as_json=True)
        elif console().is_terminal and not console().is_dumb_terminal:
            from svcreg.cli.live import show_live

            show_live(
                registry, name, title=f"{name or 'every service'} on {settings.config().backend}"
            )
        else:
            _write_events(registry, name, as_json=False)


def _write_events(registry: svcreg.Registry, name: str | None, *, as_json: bool) -> None:
    with registry.watch(name) as events:
        call_when_output_closes(events.close)
        for event in events:
            if as_json:
                write_json(codec.encode_event(event))
            else:
                _write_text(event)


def _write_text(event: Event) -> None:
    service = event.service
    clock = time.strftime("%H:%M:%S", time.localtime(event.timestamp))
    for node in service.nodes:
        parts = (clock, event.action, service.name, service.version or "-", node.id, node.address)
        metadata = format_metadata(node.metadata)
        write_line("  ".join([*parts, metadata]).rstrip(), _STYLES[event.action])
