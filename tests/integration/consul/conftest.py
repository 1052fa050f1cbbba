"""Registries that end with their test."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import svcreg
from svcreg import Registry
from tests.support.consul import consul, own_agent

__all__ = ["consul", "own_agent"]  # fixtures

OpenRegistry = Callable[..., Registry]


@pytest.fixture
def connect() -> Iterator[OpenRegistry]:
    """Open registries on the agents at the given addresses."""
    with contextlib.ExitStack() as stack:

        def open_registry(addresses: str, **options: Any) -> Registry:
            return stack.enter_context(svcreg.open("consul", address=addresses, **options))

        yield open_registry
