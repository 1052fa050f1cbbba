"""What a member answers, as an error that says what to do about it."""

from __future__ import annotations

import pytest

from svcreg.errors import (
    InvalidServiceError,
    PermissionDeniedError,
    ProtocolError,
    RegistryTimeoutError,
    RegistryUnavailableError,
)
from svcreg_etcd.errors import RpcError, translated


@pytest.mark.parametrize(
    ("code", "message", "expected", "said"),
    [
        ("UNAVAILABLE", "etcdserver: no leader", RegistryUnavailableError, "no leader"),
        ("UNAVAILABLE", "Connection refused", RegistryUnavailableError, "10.0.0.1:2379"),
        ("DEADLINE_EXCEEDED", "no answer within 2 s", RegistryTimeoutError, "within 2 s"),
        ("UNKNOWN", "etcdserver: too many requests", RegistryUnavailableError, "too many"),
        (
            "RESOURCE_EXHAUSTED",
            "etcdserver: mvcc: database space exceeded",
            RegistryUnavailableError,
            "space exceeded",
        ),
        ("NOT_FOUND", "etcdserver: requested lease not found", RegistryUnavailableError, "lease"),
        (
            "INVALID_ARGUMENT",
            "etcdserver: authentication failed, invalid user ID or password",
            PermissionDeniedError,
            "check user and password",
        ),
        ("INVALID_ARGUMENT", "etcdserver: user name is empty", PermissionDeniedError, "ETCD_USER"),
        ("PERMISSION_DENIED", "etcdserver: permission denied", PermissionDeniedError, "readwrite"),
        ("UNAUTHENTICATED", "etcdserver: invalid auth token", PermissionDeniedError, "token"),
        ("INVALID_ARGUMENT", "etcdserver: request is too large", InvalidServiceError, "large"),
        ("UNIMPLEMENTED", "unknown service etcdserverpb.KV", ProtocolError, "UNIMPLEMENTED"),
    ],
)
def test_every_answer_has_its_kind_and_says_where(
    code: str, message: str, expected: type[Exception], said: str
) -> None:
    with pytest.raises(expected, match=said) as caught, translated("get of 'svc'"):
        raise RpcError(code, message, "10.0.0.1:2379")
    assert type(caught.value) is expected
    assert "get of 'svc' at 10.0.0.1:2379" in str(caught.value)


@pytest.mark.parametrize(
    "message",
    ["etcdserver: invalid auth token", "etcdserver: revision of auth store is old"],
)
def test_stale_token_is_told_from_a_wrong_login(message: str) -> None:
    assert RpcError("UNAUTHENTICATED", message, "h:1").is_stale_token
    wrong = RpcError("INVALID_ARGUMENT", "etcdserver: authentication failed, ...", "h:1")
    assert wrong.is_wrong_login
    assert not wrong.is_stale_token


def test_error_for_another_task_is_another_one_that_says_the_same() -> None:
    error = RpcError("UNAVAILABLE", "no leader", "h:1", was_there=False, was_sent=False)
    again = error.again()
    assert again is not error
    assert vars(again) == vars(error)
    assert str(again) == str(error)
