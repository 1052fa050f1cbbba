"""What went wrong, in one line on standard error and one exit code."""

from __future__ import annotations

import logging
import sys
import traceback

import click

from svcreg.cli.output import clean
from svcreg.errors import (
    ConfigError,
    InvalidServiceError,
    NoNodeError,
    PermissionDeniedError,
    RegistryTimeoutError,
    RegistryUnavailableError,
    SvcregError,
)

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NOT_FOUND = 3
EXIT_UNREACHABLE = 4
EXIT_DENIED = 5
EXIT_INTERRUPTED = 130  # as shells count it: 128 + SIGINT

_CODES: tuple[tuple[type[SvcregError], int], ...] = (
    (ConfigError, EXIT_USAGE),
    (InvalidServiceError, EXIT_USAGE),
    (NoNodeError, EXIT_NOT_FOUND),
    (RegistryUnavailableError, EXIT_UNREACHABLE),
    (RegistryTimeoutError, EXIT_UNREACHABLE),
    (PermissionDeniedError, EXIT_DENIED),
    (SvcregError, EXIT_FAILED),
)


class NotFoundError(click.ClickException):
    """What the command line names is not registered."""

    exit_code = EXIT_NOT_FOUND


class FailedError(click.ClickException):
    """The command could not do what it is for."""

    exit_code = EXIT_FAILED


class PluginCommandError(FailedError):
    """A command of another distribution is broken."""


class _OneLine(logging.Handler):
    """Prints a log record as an error is printed, wherever standard error goes at that time."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and sys.flags.dev_mode:
            traceback.print_exception(*record.exc_info)
        # Not click.echo: it would write past a live view, which stands in for sys.stderr.
        print(f"{record.levelname.lower()}: {one_line(record.getMessage())}", file=sys.stderr)


def configure_logging() -> None:
    """Print what the library logs; of warnings only those after `show_warnings`.

    A command that asks once reports what it failed of, and that alone.
    """
    logging.basicConfig(level=logging.ERROR, handlers=[_OneLine()])


def show_warnings() -> None:
    """Print warnings from now on: for commands that go on while the registry comes and goes."""
    logging.getLogger().setLevel(logging.WARNING)


def one_line(message: str) -> str:
    """Return a message in one harmless line, whatever a server or a plugin put into it."""
    return clean(" ".join(message.split()))


def report(error: Exception) -> int:
    """Print an error, with a hint where one helps, and return the exit code it stands for."""
    code, message, hint = explain(error)
    if sys.flags.dev_mode:
        traceback.print_exception(error)
    click.echo(f"error: {one_line(message)}", err=True)
    if hint:
        click.echo(f"hint: {hint}", err=True)
    return code


def explain(error: Exception) -> tuple[int, str, str]:
    """Return exit code, message and hint (or nothing) for an error."""
    match error:
        case click.UsageError():
            path = error.ctx.command_path if error.ctx else "svcreg"
            return EXIT_USAGE, error.format_message(), f"see {path} --help"
        case click.ClickException():
            return error.exit_code, error.format_message(), ""
        case SvcregError():
            code = next(code for kind, code in _CODES if isinstance(error, kind))
            hint = ""
            if code == EXIT_UNREACHABLE:
                hint = "`svcreg backends` shows which registry is selected, and why"
            return code, str(error), hint
        case OSError():  # our own output, such as a full disk; a registry's are RegistryErrors
            return EXIT_FAILED, str(error), ""
    return (
        EXIT_FAILED,
        f"{type(error).__name__}: {error}",
        "this is a defect of svcreg or of a plugin; `python -X dev -m svcreg ...` shows where",
    )
