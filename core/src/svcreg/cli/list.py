"""`svcreg list`: the names of all services."""

from __future__ import annotations

import click
import msgspec

from svcreg.cli.output import clean, write_json
from svcreg.cli.settings import Settings, common_options, pass_settings


@click.command("list")
@common_options
@pass_settings
def command(settings: Settings) -> None:
    """List the names of all services.

    One name per line, or a JSON array of them.
    """
    with settings.open() as registry:
        names = registry.list()
    if settings.is_json:
        write_json(msgspec.json.encode(names))
        return
    for name in names:
        print(clean(name))
    if not names:
        click.echo("nothing is registered", err=True)
