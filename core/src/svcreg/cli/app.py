"""The command tree: what `svcreg` consists of, and the way in."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import importlib_metadata

from svcreg.cli.errors import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    PluginCommandError,
    configure_logging,
    report,
)
from svcreg.cli.settings import Settings, common_options
from svcreg.errors import SvcregError

ADDED = "svcreg.commands"
"""Entry points of this group are commands by other distributions; `ctx.obj` is the `Settings`."""

BUILT_IN = (
    "list",
    "get",
    "watch",
    "select",
    "register",
    "deregister",
    "backends",
    "demo",
    "new-plugin",
)


class Commands(click.Group):
    """The commands by name; one is imported when it is named, all of them for the help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the built-in commands in the order a newcomer needs them, then the added ones."""
        added = {point.name for point in importlib_metadata.entry_points(group=ADDED)}
        return [*BUILT_IN, *sorted(added - set(BUILT_IN))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; nobody replaces a built-in one, and a broken one says so when run."""
        if cmd_name in BUILT_IN:
            command: click.Command = import_module(
                f"svcreg.cli.{cmd_name.replace('-', '_')}"
            ).command
            return command
        # By value, because the same entry point may be found twice, as in an editable installation.
        added = importlib_metadata.entry_points(group=ADDED, name=cmd_name)
        points = {point.value: point for point in added}
        if not points:
            return None
        try:
            return _load(points)
        except (Exception, SystemExit) as error:
            is_ours = isinstance(error, PluginCommandError)
            problem = str(error) if is_ours else f"{type(error).__name__}: {error}"
        return click.Command(
            cmd_name,
            help=f"Cannot be loaded: {problem}",
            callback=_fail(cmd_name, problem),
            # Whatever its own arguments are, they are not what is wrong.
            context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
        )

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a reader of our output that has seen enough is no failure."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except SvcregError:  # one that is also a TimeoutError, thus an OSError, is not our output's
            raise
        except OSError as error:
            # The interpreter flushes once more when it exits, which must not fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if isinstance(error, BrokenPipeError):
                raise click.exceptions.Exit(EXIT_OK) from None
            raise
        return result


def _load(points: Mapping[str, importlib_metadata.EntryPoint]) -> click.Command:
    value, *others = sorted(points)
    if others:
        raise PluginCommandError(f"it is {' and '.join([value, *others])}; uninstall all but one")
    loaded = points[value].load()
    if not isinstance(loaded, click.Command):
        raise PluginCommandError(f"{value} is a {type(loaded).__name__}, not a click command")
    return loaded


def _fail(name: str, problem: str) -> Callable[[], None]:
    def fail() -> None:
        raise PluginCommandError(f"command {name!r} cannot be loaded: {problem}")

    return fail


@click.group(
    cls=Commands,
    invoke_without_command=True,
    epilog="Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 registry unreachable, "
    "5 permission denied.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@common_options
@click.version_option(package_name="svcreg", message="svcreg %(version)s")
@click.pass_context
def commands(ctx: click.Context) -> None:
    """Register services and find them, in whichever registry MICRO_REGISTRY names.

    The options may stand before or after the command; the later one wins.
    """
    ctx.ensure_object(Settings)
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def run(args: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; what went wrong has been reported."""
    _prepare_process()
    try:
        result = commands.main(args, prog_name="svcreg", standalone_mode=False)
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except Exception as error:
        return report(error)
    return result if isinstance(result, int) else EXIT_OK


def _prepare_process() -> None:
    """Write what the terminal's encoding lacks in escapes, and log lines as errors are written."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed before we were started
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - never closed
        if hasattr(getattr(sys, name), "reconfigure"):
            getattr(sys, name).reconfigure(errors="backslashreplace")
    configure_logging()
