"""`svcreg demo`: the whole idea in a story of twenty seconds, with real processes."""

from __future__ import annotations

import os
import secrets
import shlex
import socket
import time

import click

import svcreg
from svcreg.cli.demo_stage import TTL, Actor, Stage
from svcreg.cli.errors import FailedError
from svcreg.cli.output import console, write_line
from svcreg.cli.settings import Settings, common_options, pass_settings
from svcreg.cli.signals import interrupting_signals


@click.command("demo")
@common_options
@pass_settings
def command(settings: Settings) -> None:
    """See it work: three nodes, a client, a kill and a restart.

    Takes less than half a minute and leaves nothing behind. Without --registry and MICRO_REGISTRY
    it uses mDNS on the loopback interface, so nothing leaves this machine.
    """
    started = time.monotonic()
    given = settings.registry
    chosen = given or os.environ.get("MICRO_REGISTRY") or local_mdns()
    settings = Settings(chosen, settings.registry_address, settings.timeout)
    environ = {**os.environ, "MICRO_REGISTRY": chosen}
    if settings.registry_address:
        environ["MICRO_REGISTRY_ADDRESS"] = ",".join(settings.registry_address)
    backend = settings.config().backend
    if backend == "memory":
        raise svcreg.ConfigError(
            "memory lives in one process and the demo has four; try: svcreg demo --registry sqlite"
        )
    # Two demos at the same time, on one registry, must not meet.
    mark = secrets.token_hex(2)
    with interrupting_signals(), open_registry(settings) as registry:
        introduce(chosen, backend, mark)
        with Stage(registry, environ) as stage:
            play(stage, f"greeter-{mark}", f"clock-{mark}")
    conclude(chosen if given or not os.environ.get("MICRO_REGISTRY") else None, started)


def open_registry(settings: Settings) -> svcreg.Registry:
    """Open the registry; without the mDNS plugin say what else there is."""
    try:
        return settings.open()
    except svcreg.BackendNotFoundError as error:
        raise svcreg.ConfigError(
            f"{error}. Or play it without: svcreg demo --registry sqlite"
        ) from None


def local_mdns() -> str:
    """Return the URL of mDNS on the loopback interface alone."""
    try:
        names = {name for _, name in socket.if_nameindex()}
    except OSError:
        names = set()
    return f"mdns://?interfaces={'lo' if 'lo' in names else '127.0.0.1'}"


def introduce(chosen: str, backend: str, mark: str) -> None:
    """Say what is about to be seen."""
    write_line(f"Programs that find each other through {backend}", "bold")
    console().print(
        "Each program below is a process of its own. Nobody tells the client an address: it asks\n"
        f"the registry for the services greeter-{mark} and clock-{mark}. ({mark} marks this run.)",
        style="dim",
        soft_wrap=True,
    )


def play(stage: Stage, greeter: str, clock: str) -> None:
    """Tell the story; raises `FailedError` where something does not happen as told."""
    first = Actor(greeter, "greeter-1", "Hello {name}")
    second = Actor(greeter, "greeter-2", "Good day {name}")
    clerk = Actor(clock, "clock-1", "It is {time}")

    stage.heading("Three programs start, and each registers itself")
    stage.start(first, second, clerk)

    stage.heading("A client asks for a service and picks its nodes in turn")
    expect(sorted(stage.call(greeter, 4)) == ["greeter-1"] * 2 + ["greeter-2"] * 2)
    expect(stage.call(clock, 1) == ["clock-1"])

    stage.heading("greeter-2 is killed with SIGKILL: it cannot say goodbye")
    second.kill()
    expect(stage.call(greeter, 2) == ["greeter-1"])
    stage.tell("", f"greeter-2 stays listed until its TTL of {TTL:g} s runs out; nobody renews it")
    seconds = stage.wait_until_gone(second)
    stage.tell("greeter-2", f"is gone from the registry, after another {seconds:.1f} s", "yellow")
    expect(stage.call(greeter, 2) == ["greeter-1"] * 2)

    stage.heading("greeter-2 is started again, and is picked again")
    stage.start(second)
    expect(sorted(stage.call(greeter, 2)) == ["greeter-1", "greeter-2"])

    stage.heading("clock-1 ends normally: it says goodbye, and nobody waits for a TTL")
    clerk.ask_to_end()
    seconds = stage.wait_until_gone(clerk)
    stage.tell("clock-1", f"is gone from the registry after {seconds * 1000:.0f} ms", "yellow")


def expect(as_told: bool) -> None:
    """Fail unless the client was answered as the story says."""
    if not as_told:
        raise FailedError("demo: the answers above are not those that the story promises")


def conclude(chosen: str | None, started: float) -> None:
    """Say that all went well and what to try next, with the registry where it must be named."""
    console().print()
    seconds = time.monotonic() - started
    write_line(f"All of it happened as told, in {seconds:.0f} s. No process is left.", "bold green")
    if chosen is not None and "@" in chosen:
        chosen = "..."  # it holds a password, perhaps
    option = "" if chosen is None else f" --registry {shlex.quote(chosen)}"
    write_line("Try it yourself, in two terminals:", "dim")
    write_line(f"   svcreg watch{option}")
    write_line(f"   svcreg register hello --address 127.0.0.1:8080{option}")
