"""Errors say who failed, whether to try again, and can be caught as what they also are."""

from __future__ import annotations

import pickle

import pytest

import svcreg
from svcreg import errors
from svcreg.errors import RegistryError, SvcregError

CLASSES = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, SvcregError)
]
RETRYABLE = {"RegistryUnavailableError", "RegistryTimeoutError", "RegistrationLostError"}


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_error_is_exported_and_knows_whether_to_retry(cls: type[SvcregError]) -> None:
    assert getattr(svcreg, cls.__name__) is cls
    assert cls.retryable is (cls.__name__ in RETRYABLE)


def test_tree_lets_callers_catch_what_they_mean() -> None:
    assert issubclass(svcreg.InvalidServiceError, ValueError)
    assert issubclass(svcreg.RegistryTimeoutError, TimeoutError)
    assert issubclass(svcreg.BackendNotFoundError, svcreg.ConfigError)
    assert issubclass(svcreg.BackendLoadError, svcreg.ConfigError)
    assert not issubclass(svcreg.RegistryClosedError, svcreg.RegistryError)


@pytest.mark.parametrize(
    "cls", [cls for cls in CLASSES if issubclass(cls, RegistryError)], ids=lambda cls: cls.__name__
)
def test_registry_error_carries_where_it_happened(cls: type[RegistryError]) -> None:
    error = cls("it failed", backend="consul", operation="get", service="greeter")
    assert str(error) == "it failed"
    assert (error.backend, error.operation, error.service) == ("consul", "get", "greeter")
    bare = cls("it failed")
    assert (bare.backend, bare.operation, bare.service) == ("", "", None)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_error_survives_pickling(cls: type[SvcregError]) -> None:
    error = cls("it failed")
    if isinstance(error, RegistryError):
        error.backend = "consul"
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is cls
    assert str(copy) == "it failed"
    assert vars(copy) == vars(error)
