"""`svcreg select`: what a client would pick."""

from __future__ import annotations

import click

from svcreg import codec
from svcreg.cli.output import format_metadata, write_json, write_table
from svcreg.cli.settings import Settings, common_options, pass_settings


@click.command("select")
@click.argument("name")
@click.option(
    "--strategy",
    metavar="NAME",
    help="How to choose: random, round_robin, or one that is installed.  "
    "[default: $MICRO_SELECTOR, else random]",
)
@click.option(
    "-n",
    "count",
    metavar="N",
    type=click.IntRange(min=1),
    default=1,
    help="Pick N times in a row.  [default: 1]",
)
@common_options
@pass_settings
def command(settings: Settings, name: str, strategy: str | None, count: int) -> None:
    """Pick a node of the service NAME as a client would.

    JSON is one node per line. Exits with 3 when there is no node to pick.
    """
    with settings.open() as registry:
        selector = registry.selector(name, strategy=strategy)
        nodes = [selector.pick() for _ in range(count)]
    if settings.is_json:
        for node in nodes:
            write_json(codec.encode_node(node))
        return
    write_table(
        ("NODE", "ADDRESS", "METADATA"),
        [(node.id, node.address, format_metadata(node.metadata)) for node in nodes],
    )
