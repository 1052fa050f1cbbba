"""`svcreg deregister`: withdraw one node, whoever registered it."""

from __future__ import annotations

import click

from svcreg import codec
from svcreg.cli.errors import NotFoundError
from svcreg.cli.output import write_json, write_line
from svcreg.cli.settings import Settings, common_options, pass_settings


@click.command("deregister")
@click.argument("name")
@click.argument("node")
@common_options
@pass_settings
def command(settings: Settings, name: str, node: str) -> None:
    """Withdraw the node with the id NODE of the service NAME.

    For a node whose program cannot do it any more: one that still runs registers itself again. JSON
    is an array of what was withdrawn. Exits with 3 when there is no such node.
    """
    with settings.open() as registry:
        found = [
            service.with_nodes([each for each in service.nodes if each.id == node])
            for service in registry.get(name)
            if any(each.id == node for each in service.nodes)
        ]
        if not found:
            raise NotFoundError(f"service {name!r} has no node {node!r}")
        for service in found:
            registry.deregister(service)
    if settings.is_json:
        write_json(codec.encode_services(found))
        return
    for service in found:
        for each in service.nodes:
            write_line(f"deregistered {each.id} of {service.name} at {each.address}")
