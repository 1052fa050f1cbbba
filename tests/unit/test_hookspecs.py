"""The contract is what the documentation says, and growing it never breaks a plugin."""

from __future__ import annotations

import inspect

import pytest

from svcreg import Delta, Node, Service, Snapshot, hookimpl
from svcreg.hookspecs import (
    CAPABILITIES,
    PROJECT,
    REQUIRED_HOOKS,
    BackendSpec,
    ObserverSpec,
)

# Arguments may be added here, never taken away: a published plugin relies on them.
CONTRACT = {
    "svcreg_open": ("config",),
    "svcreg_close": (),
    "svcreg_register": ("service", "ttl"),
    "svcreg_deregister": ("service",),
    "svcreg_get": ("name",),
    "svcreg_list": (),
    "svcreg_watch": ("name", "stop"),
    "svcreg_drain": ("service",),
    "svcreg_renew": ("services", "ttl"),
    "svcreg_observe": ("operation", "backend", "service", "seconds", "error"),
}


def hooks_of(spec: type) -> dict[str, tuple[str, ...]]:
    return {
        name: tuple(inspect.signature(function).parameters)[1:]
        for name, function in vars(spec).items()
        if name.startswith("svcreg_")
    }


def test_hooks_and_their_arguments_are_the_contract() -> None:
    assert hooks_of(BackendSpec) | hooks_of(ObserverSpec) == CONTRACT
    assert set(REQUIRED_HOOKS) == {
        "svcreg_register",
        "svcreg_deregister",
        "svcreg_get",
        "svcreg_list",
        "svcreg_watch",
    }


def test_every_hook_is_documented() -> None:
    for spec in (BackendSpec, ObserverSpec):
        for name in hooks_of(spec):
            assert inspect.getdoc(getattr(spec, name))


def test_capabilities_are_documented_and_cannot_be_changed() -> None:
    assert set(CAPABILITIES) == {
        "ttl",
        "push",
        "watch-all",
        "fencing",
        "endpoints",
        "cross-process",
    }
    assert all(CAPABILITIES.values())
    with pytest.raises(TypeError):
        CAPABILITIES["more"] = "no"  # type: ignore[index]


def test_hookimpl_marks_for_this_project() -> None:
    @hookimpl
    def svcreg_get(name: str) -> tuple[Service, ...]:
        return ()

    assert hasattr(svcreg_get, f"{PROJECT}_impl")


def test_snapshots_and_deltas_keep_lists_as_tuples() -> None:
    service = Service("greeter", nodes=(Node("n", "h:1"),))
    assert Snapshot([service]) == Snapshot((service,))
    assert Snapshot().services == ()
    delta = Delta([service], [service], "7")
    assert (delta.upserts, delta.deletes, delta.revision) == ((service,), (service,), "7")
    assert Delta() == Delta((), (), None)
