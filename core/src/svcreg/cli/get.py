"""`svcreg get`: the nodes of one service."""

from __future__ import annotations

from collections.abc import Sequence

import click

from svcreg import Service, codec
from svcreg.cli.errors import NotFoundError
from svcreg.cli.output import format_metadata, write_json, write_line, write_table
from svcreg.cli.settings import Settings, common_options, pass_settings


@click.command("get")
@click.argument("name")
@common_options
@pass_settings
def command(settings: Settings, name: str) -> None:
    """Show the nodes of the service NAME.

    JSON is an array of services as on the wire, one per version. Exits with 3 when nothing of that
    name is registered.
    """
    with settings.open() as registry:
        services = registry.get(name)
    if settings.is_json:
        write_json(codec.encode_services(services))
    elif services:
        show_services(services)
    if not services:
        raise NotFoundError(f"no service {name!r} is registered")


def show_services(services: Sequence[Service]) -> None:
    """Print the nodes of all versions as a table, then what is said of a version as a whole."""
    write_table(
        ("VERSION", "NODE", "ADDRESS", "METADATA"),
        [
            (service.version or "-", node.id, node.address, format_metadata(node.metadata))
            for service in services
            for node in service.nodes
        ],
    )
    for service in services:
        which = f"version {service.version}" if service.version else "service"
        if service.metadata:
            write_line(f"{which} metadata: {format_metadata(service.metadata)}", "dim")
        if service.endpoints:
            names = ", ".join(endpoint.name for endpoint in service.endpoints)
            write_line(f"{which} endpoints: {names}", "dim")
