"""The error tree: what to catch, and which errors are worth another attempt."""

from __future__ import annotations


class SvcregError(Exception):
    """Base of every error that svcreg raises on purpose."""

    retryable = False
    """Whether the same call may succeed later without anybody changing anything."""


class ConfigError(SvcregError):
    """The settings are wrong; fix them. Never retried."""


class BackendNotFoundError(ConfigError):
    """No installed distribution provides the backend; the message says what to install."""


class BackendLoadError(ConfigError):
    """The plugin failed to import or breaks the hook contract; the message says how."""


class InvalidServiceError(SvcregError, ValueError):
    """A service, node or name breaks a rule; the message says which field and why."""


class NoNodeError(SvcregError):
    """There is nothing to select; the message says how many nodes were left out."""


class RegistryClosedError(SvcregError):
    """The registry was used after it had been closed."""


class RegistryError(SvcregError):
    """A call to the registry failed.

    Attributes:
        backend: Name of the backend, such as `consul`; core fills in what a plugin left out.
        operation: `register`, `deregister`, `get`, `list`, `watch`, `renew` or `open`; likewise.
        service: Name of the service concerned, or None.
    """

    def __init__(
        self, message: str, *, backend: str = "", operation: str = "", service: str | None = None
    ) -> None:
        super().__init__(message)
        self.backend = backend
        self.operation = operation
        self.service = service


class RegistryUnavailableError(RegistryError):
    """The registry cannot be reached or cannot answer now."""

    retryable = True


class RegistryTimeoutError(RegistryError, TimeoutError):
    """The registry did not answer in time; what was asked may have happened all the same."""

    retryable = True


class PermissionDeniedError(RegistryError):
    """The registry refused; the message names the missing right where the server says so."""


class ProtocolError(RegistryError):
    """What the server or another program wrote makes no sense."""


class RegistrationLostError(RegistryError):
    """The registry forgot a registration and has not taken it back yet."""

    retryable = True
