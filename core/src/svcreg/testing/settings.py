"""How a test class tells the suite where its backend is, and what else may be done to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, Protocol, TypeAlias

import pytest

from svcreg.testing.session import given_backend

PlantGarbage: TypeAlias = Callable[[str], object]
"""Writes a record that makes no sense beside those of the service of this name."""

NO_SERVER = (
    "no server is declared; name the TCP server behind the URL as `server`, or with --svcreg-server"
)
NO_RESTART = "the server cannot be restarted; give the suite a `server` with stop and start"
NO_GARBAGE = "there is no `plant_garbage` to write a record that makes no sense"


class Server(Protocol):
    """A server that belongs to the test, which may therefore stop it."""

    @property
    def address(self) -> str:
        """`host:port`, as in the URL; stays the same when it is started again."""
        ...

    def stop(self) -> None:
        """End the server at once, as a crash would."""
        ...

    def start(self, *, keep_data: bool) -> None:
        """Start it again, with or without what it knew; return once it answers."""
        ...


def declared(request: pytest.FixtureRequest, name: str) -> Any:
    """Return a setting of the test's class, be it text or a fixture; None where it has none."""
    value = getattr(request.cls, name, None)
    if value is None or isinstance(value, str):
        return value
    return request.getfixturevalue(name)


def find_backend(request: pytest.FixtureRequest) -> str:
    """Return the URL of the backend: what the class declares, else what the options name."""
    url = declared(request, "backend") or given_backend(request.config)
    if url is None:
        try:  # a fixture of the module or of a conftest
            url = request.getfixturevalue("backend")
        except pytest.FixtureLookupError:
            pytest.fail(
                f"{request.cls.__name__} does not say which backend: set `backend` to its URL, "
                "make a fixture of that name, or run pytest with --svcreg-backend",
                pytrace=False,
            )
    assert isinstance(url, str), f"`backend` must be a name or URL, not {type(url).__name__}"
    return url


def find_server(request: pytest.FixtureRequest) -> str | Server | None:
    """Return the server behind the backend, as the class or the options declare it."""
    server: str | Server | None = declared(request, "server")
    if server is None and declared(request, "backend") is None:
        server = request.config.getoption("--svcreg-server", None)
    return server


def address_of(server: str | Server | None) -> str:
    """Return `host:port`; skips the test where no server is declared."""
    if server is None:
        not_applicable(NO_SERVER)
    return server if isinstance(server, str) else server.address


def not_applicable(reason: str) -> NoReturn:
    """Skip a test that needs something which only the author of the tests can give."""
    pytest.skip(f"not applicable: {reason}")
