"""What a member answers instead of a result, and what that means to svcreg.

etcd tells many conditions apart by text alone; the texts are those of api/v3rpc/rpctypes/error.go,
unchanged from 3.4 to 3.6.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from svcreg.errors import (
    InvalidServiceError,
    PermissionDeniedError,
    ProtocolError,
    RegistryError,
    RegistryTimeoutError,
    RegistryUnavailableError,
)

# Status codes of gRPC, by the names that its specification gives them.
UNAVAILABLE = "UNAVAILABLE"
DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
_CANCELLED = "CANCELLED"
_INTERNAL = "INTERNAL"
_UNAUTHENTICATED = "UNAUTHENTICATED"
PERMISSION_DENIED = "PERMISSION_DENIED"
_RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"

_STALE_TOKEN = ("invalid auth token", "user name is empty", "revision of auth store is old")
_WRONG_LOGIN = "authentication failed"
_AUTH_DISABLED = "authentication is not enabled"
_LEASE_GONE = "requested lease not found"
_LEASE_EXISTS = "lease already exists"
_COMPACTED = "required revision has been compacted"
_TOO_MANY_REQUESTS = "too many requests"  # comes as UNKNOWN
_TOO_LARGE = ("request is too large", "larger than max")


class RpcError(Exception):
    """One member did not do what it was asked.

    Attributes:
        code: The name of gRPC's status code; `UNAVAILABLE` also where there was no connection.
        message: What the member said, or what happened to the connection.
        endpoint: `host:port` of the member.
        was_there: Whether the member has ever said anything on this connection.
        was_sent: Whether it may have been asked, and so may have done it all the same.
    """

    def __init__(
        self,
        code: str,
        message: str,
        endpoint: str,
        *,
        was_there: bool = True,
        was_sent: bool = True,
    ) -> None:
        super().__init__(f"{endpoint}: {message} ({code})")
        self.code = code
        self.message = message
        self.endpoint = endpoint
        self.was_there = was_there
        self.was_sent = was_sent

    def again(self) -> RpcError:
        """Return the same once more, for another task to raise."""
        return RpcError(
            self.code,
            self.message,
            self.endpoint,
            was_there=self.was_there,
            was_sent=self.was_sent,
        )

    @property
    def is_lost(self) -> bool:
        """Whether another member may do better."""
        return self.code in (UNAVAILABLE, DEADLINE_EXCEEDED, _CANCELLED, _INTERNAL)

    @property
    def is_stale_token(self) -> bool:
        """Whether a new token may help."""
        return any(text in self.message for text in _STALE_TOKEN)

    @property
    def is_wrong_login(self) -> bool:
        """Whether user or password is wrong."""
        return _WRONG_LOGIN in self.message

    @property
    def is_auth_disabled(self) -> bool:
        """Whether the member has nobody log in."""
        return _AUTH_DISABLED in self.message

    @property
    def is_refused(self) -> bool:
        """Whether this user may not do this."""
        return self.code == PERMISSION_DENIED or self.is_wrong_login or self.is_stale_token

    @property
    def is_lease_gone(self) -> bool:
        """Whether the member knows the lease no more."""
        return _LEASE_GONE in self.message

    @property
    def is_lease_taken(self) -> bool:
        """Whether a lease of this id is there already."""
        return _LEASE_EXISTS in self.message

    @property
    def is_compacted(self) -> bool:
        """Whether what was asked for is too old to be known."""
        return _COMPACTED in self.message

    @property
    def is_too_large(self) -> bool:
        """Whether the request is larger than this cluster takes."""
        return any(text in self.message for text in _TOO_LARGE)


@contextlib.contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn a member's refusal or silence into an error of svcreg's that says what failed."""
    try:
        yield
    except RpcError as error:
        raise _translate(error, what) from error


def _translate(error: RpcError, what: str) -> RegistryError | InvalidServiceError:
    said = f"etcd: {what} at {error.endpoint} "
    if error.code == DEADLINE_EXCEEDED:
        return RegistryTimeoutError(said + f"failed: {error.message}", backend="etcd")
    if error.is_wrong_login:
        said += f"refused: {error.message}; check user and password"
        return PermissionDeniedError(said, backend="etcd")
    if error.code in (_UNAUTHENTICATED, PERMISSION_DENIED) or error.is_stale_token:
        hint = "; the user's role needs readwrite on the prefix"
        if error.is_stale_token:
            hint = "; give username and password (ETCD_USERNAME, ETCD_PASSWORD)"
        return PermissionDeniedError(said + f"refused: {error.message}{hint}", backend="etcd")
    if error.is_too_large:
        return InvalidServiceError(said + f"refused: {error.message}")
    is_passing = error.is_lost or error.code == _RESOURCE_EXHAUSTED or error.is_lease_gone
    is_passing = is_passing or error.is_compacted
    if is_passing or _TOO_MANY_REQUESTS in error.message:
        return RegistryUnavailableError(said + f"failed: {error.message}", backend="etcd")
    return ProtocolError(said + f"failed: {error.message} ({error.code})", backend="etcd")
