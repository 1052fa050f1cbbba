"""The demo's story, with programs that are objects of this process instead of processes."""

from __future__ import annotations

import io
import itertools
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

import svcreg as library
from svcreg import Node, Service
from svcreg.cli import demo, demo_node, demo_stage
from svcreg.cli.demo_stage import Actor, Stage
from svcreg.cli.errors import FailedError
from tests.unit.cli.support import Result, Running, Svcreg


class Program(Actor):
    """A program of the cast that lives in this process; being called is a function call."""

    cast: ClassVar[dict[str, Program]] = {}
    ports = itertools.count(1)
    mute = ""  # the node id of one that does not answer
    impostor = ""  # the node id that all of them answer with
    registry: library.Registry | None = None

    def start(self, environ: Mapping[str, str]) -> None:
        address = f"127.0.0.1:{next(self.ports)}"
        self.cast[address] = self
        self.is_alive = True
        self.registry = library.open(environ["MICRO_REGISTRY"])
        node = Node(self.node_id, address)
        self.registry.register(Service(self.service, "1.0.0", nodes=[node]), ttl=60)

    def kill(self) -> None:
        self.is_alive = False

    def ask_to_end(self) -> None:
        if self.registry is not None:
            self.registry.close()

    def end(self) -> None:
        """Nothing is left to wait for."""

    @classmethod
    def ask(cls, node: Node) -> tuple[str, str, str]:
        """Call a node; one that was killed stays listed until a client has noticed."""
        program = cls.cast[node.address]
        if not program.is_alive:
            program.ask_to_end()
            raise ConnectionRefusedError(111, "Connection refused")
        if node.id == cls.mute:
            raise ValueError("not enough values to unpack")
        return cls.impostor or node.id, program.phrase.format(name="Ada", time="now"), "4711"


@pytest.fixture(autouse=True)
def _programs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(Program, "cast", {})
    monkeypatch.setattr(demo, "Actor", Program)
    monkeypatch.setattr(demo_stage, "_ask", Program.ask)
    monkeypatch.setattr(demo_stage, "_PACE", 0.0)
    yield
    for program in Program.cast.values():
        program.ask_to_end()
        program.stderr.close()


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A registry that more than one process could share."""
    return f"sqlite://{tmp_path}/registry.db"


def test_story_is_told_and_leaves_nothing_behind(svcreg: Svcreg, url: str) -> None:
    result = svcreg("demo", "--registry", url)
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert lines[0] == "Programs that find each other through sqlite"
    assert [line[0] for line in lines if line[1:3] == ". "] == list("12345")
    story = "\n".join(lines)
    for told in (
        'greeter-1  "Hello Ada", says process 4711',
        "greeter-2  connection refused; the client goes on to the next node",
        "greeter-2  is gone from the registry, after another",
        "clock-1    is gone from the registry after",
        "All of it happened as told, in ",
        f"svcreg watch --registry {url}",
        f"svcreg register hello --address 127.0.0.1:8080 --registry {url}",
    ):
        assert told in story
    assert result.stderr == ""
    assert svcreg.json("list", "--registry", url) == []


def test_story_on_a_terminal_is_the_same(svcreg: Svcreg, url: str) -> None:
    svcreg.is_terminal = True
    assert "All of it happened as told" in svcreg("demo", "--registry", url).stdout


def test_registry_of_the_environment_need_not_be_named_again(
    svcreg: Svcreg, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MICRO_REGISTRY", url)
    assert svcreg("demo").stdout.endswith("svcreg register hello --address 127.0.0.1:8080\n")


def test_default_registry_is_named(
    svcreg: Svcreg, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MICRO_REGISTRY")
    monkeypatch.setattr(demo, "local_mdns", lambda: url)
    assert f"svcreg watch --registry {url}\n" in svcreg("demo").stdout


def test_address_reaches_the_programs(
    svcreg: Svcreg, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Mapping[str, str]] = []

    def start(self: Program, environ: Mapping[str, str]) -> None:
        seen.append(environ)
        raise FailedError("seen enough")

    monkeypatch.setattr(Program, "start", start)
    path = url.removeprefix("sqlite://")
    svcreg("demo", "--registry", "sqlite", "--registry-address", path, code=1)
    [environ] = seen
    assert (environ["MICRO_REGISTRY"], environ["MICRO_REGISTRY_ADDRESS"]) == ("sqlite", path)
    assert environ.items() >= {"PATH": os.environ["PATH"]}.items()


@pytest.mark.parametrize("node_id", ["greeter-1", "clock-1"])
def test_answers_that_are_not_as_told_fail_the_demo(
    svcreg: Svcreg, url: str, monkeypatch: pytest.MonkeyPatch, node_id: str
) -> None:
    monkeypatch.setattr(Program, "mute", node_id)
    result = svcreg("demo", "--registry", url, code=1)
    assert "error: demo: the answers above are not those that the story promises" in result.stderr
    assert "no answer; the client goes on" in result.stdout
    assert "All of it" not in result.stdout
    assert svcreg.json("list", "--registry", url) == []


def test_answer_of_another_node_fails_the_demo(
    svcreg: Svcreg, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Program, "impostor", "greeter-9")
    error = svcreg("demo", "--registry", url, code=1).stderr
    assert error.startswith("error: demo: greeter-9 answered where ")


def test_interrupted_demo_ends_its_programs(
    svcreg: Svcreg, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_stage, "_ask", lambda _node: time.sleep(60))

    def wait(running: Running) -> None:
        running.wait_for("A client asks")

    result = svcreg.meanwhile(wait, "demo", "--registry", url, code=130)
    assert result.stderr.strip() == ""
    assert svcreg.json("list", "--registry", url) == []


def test_memory_is_refused_with_the_reason(svcreg: Svcreg) -> None:
    error = svcreg("demo", code=2).stderr
    assert "memory lives in one process" in error
    assert "svcreg demo --registry sqlite" in error


def test_missing_plugin_is_named_with_what_to_install(svcreg: Svcreg) -> None:
    error = svcreg("demo", "--registry", "nosuch", code=2).stderr
    assert "pip install svcreg-nosuch" in error
    assert "Or play it without: svcreg demo --registry sqlite" in error


@pytest.mark.parametrize(
    ("names", "interface"), [(["lo", "eth0"], "lo"), (["lo0"], "127.0.0.1"), (None, "127.0.0.1")]
)
def test_default_is_mdns_on_the_loopback_interface(
    monkeypatch: pytest.MonkeyPatch, names: list[str] | None, interface: str
) -> None:
    def interfaces() -> list[tuple[int, str]]:
        if names is None:
            raise OSError("not here")
        return list(enumerate(names, 1))

    monkeypatch.setattr(socket, "if_nameindex", interfaces)
    assert demo.local_mdns() == f"mdns://?interfaces={interface}"


def conclusion(svcreg: Svcreg, chosen: str | None) -> Result:
    with svcreg.streams() as running:
        demo.conclude(chosen, time.monotonic() - 7)
        sys.stdout.flush()
    return Result(0, running.output, running.errors)


def test_what_to_try_next_can_be_pasted_into_a_shell(svcreg: Svcreg) -> None:
    text = conclusion(svcreg, "mdns://?interfaces=lo&x=y").stdout
    assert "in 7 s" in text
    assert "svcreg watch --registry 'mdns://?interfaces=lo&x=y'" in text


def test_what_to_try_next_shows_no_password(svcreg: Svcreg) -> None:
    text = conclusion(svcreg, "etcd://ada:s3cret@host:2379").stdout
    assert "s3cret" not in text
    assert "svcreg watch --registry ..." in text


@pytest.fixture
def stage(svcreg: Svcreg, registry: library.Registry) -> Iterator[Stage]:
    with svcreg.streams(), Stage(registry, {"MICRO_REGISTRY": svcreg.url}) as opened:
        yield opened


def test_program_that_ends_early_is_told_with_its_last_words(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Program, "start", lambda *_: None)
    monkeypatch.setattr(Program, "has_ended", True)
    program = Program("hello", "h-1", "")
    program.stderr.write("Traceback\n  somewhere\nKeyError: 'oops'\n")
    with pytest.raises(FailedError, match="h-1 ended early: KeyError: 'oops'"):
        stage.start(program)
    with pytest.raises(FailedError, match="h-2 ended early: it said nothing"):
        stage.start(Program("hello", "h-2", ""))


def test_program_that_is_never_listed_is_not_waited_for_for_ever(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_stage, "_PATIENCE", 0.05)
    monkeypatch.setattr(Program, "start", lambda *_: None)
    with pytest.raises(FailedError, match=r"h-1 was not listed within 0\.05 s"):
        stage.start(Program("hello", "h-1", ""))


def test_program_that_stays_listed_is_not_waited_for_for_ever(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = Program("hello", "h-1", "")
    stage.start(program)
    monkeypatch.setattr(demo_stage, "_PATIENCE", 0.05)
    with pytest.raises(FailedError, match=r"h-1 was still listed 0\.05 s later"):
        stage.wait_until_gone(program)


def test_program_that_was_never_started_can_be_ended() -> None:
    actor = Actor("hello", "h-1", "")
    assert not actor.has_ended
    actor.kill()
    actor.ask_to_end()
    actor.end()
    assert actor.process is None
    actor.stderr.close()


class Request:
    """A connection of one client that has said this."""

    def __init__(self, said: bytes) -> None:
        self.said = said
        self.answer = b""

    def settimeout(self, seconds: float) -> None:
        assert 0 < seconds < 60

    def makefile(self, *_: Any) -> io.BytesIO:
        return io.BytesIO(self.said)

    def sendall(self, data: bytes) -> None:
        self.answer += data


@pytest.mark.parametrize(
    ("said", "name"),
    [(b"Ada\n", "Ada"), (b"", ""), (b"\xff\n", "\ufffd"), (b"x" * 1000, "x" * 200)],
)
def test_node_greets_by_name_and_says_who_it_is(said: bytes, name: str) -> None:
    server = demo_node.Greeter.__new__(demo_node.Greeter)
    server.node_id, server.phrase = "h-1", "Hello {name}"
    request: Any = Request(said)
    demo_node._Greeting(request, ("127.0.0.1", 1), server)
    assert request.answer.decode() == f"h-1\tHello {name}\t{os.getpid()}\n"
