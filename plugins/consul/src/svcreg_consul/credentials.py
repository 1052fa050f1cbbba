"""What proves who we are: token and certificates, read again when their files change."""

from __future__ import annotations

import logging
import ssl
import time
from pathlib import Path

from svcreg import TLS
from svcreg.errors import ConfigError

RECHECK_SECONDS = 0.5
"""How often the files are looked at, at most; a look costs some microseconds."""

_log = logging.getLogger("svcreg.consul")


class Token:
    """The ACL token, from memory or from a file. Its `repr` shows nothing of it."""

    def __init__(self, value: str | None, path: str | None) -> None:
        self._value = value
        self._file = _Files([path]) if path else None

    def read(self) -> str | None:
        """Return the token as it is now.

        Raises:
            ConfigError: Its file has never been readable.
        """
        if self._file is not None and self._file.have_changed():
            (path,) = self._file.paths
            try:
                text = Path(path).read_text(encoding="ascii").strip()
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or "it is no token"
                if self._value is None:
                    self._file.forget()
                    raise ConfigError(
                        f"consul: token file {path} cannot be read: {reason}"
                    ) from None
                _log.warning("token file %s cannot be read, using the last token: %s", path, reason)
            else:
                if text and text.isprintable():
                    self._value = text
        return self._value

    def hide(self, text: str) -> str:
        """Return a text without the token, should a server have repeated it."""
        return text.replace(self._value, "***") if self._value else text


class Certificates:
    """The TLS context, made anew when one of its files has changed.

    Attributes:
        generation: Counts the contexts made; a connection made with an earlier one is outdated.
    """

    def __init__(self, tls: TLS) -> None:
        self._tls = tls
        self._files = _Files([path for path in (tls.ca, tls.cert, tls.key) if path])
        self._context: ssl.SSLContext | None = None
        self.generation = 0

    def context(self) -> ssl.SSLContext:
        """Return the context as the files have it now.

        Raises:
            ConfigError: The files have never been usable; says which one is not.
        """
        if self._context is None or self._files.have_changed():
            try:
                self._context = self._load()
                self.generation += 1
            except ConfigError as error:
                if self._context is None:
                    self._files.forget()
                    raise
                # Somebody is just replacing them, one after the other.
                _log.warning("certificates cannot be replaced yet: %s", error)
        return self._context

    def _load(self) -> ssl.SSLContext:
        tls = self._tls
        try:
            context = ssl.create_default_context(cafile=tls.ca)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"consul: CA file {tls.ca} cannot be used: {error}") from None
        if not tls.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if tls.cert:
            try:
                context.load_cert_chain(tls.cert, tls.key, password=_no_password)
            except (OSError, ssl.SSLError, ValueError) as error:
                raise ConfigError(
                    f"consul: certificate {tls.cert} and key {tls.key} cannot be used: {error}"
                ) from None
        return context


class _Files:
    """Some files, and what they were like when last looked at."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths
        self._seen: list[tuple[int, int, int] | None] | None = None
        self._looked_at = float("-inf")

    def have_changed(self) -> bool:
        """Tell whether one of them differs from the last time that this said so."""
        now = time.monotonic()
        if now - self._looked_at < RECHECK_SECONDS:
            return False
        self._looked_at = now
        seen, self._seen = self._seen, [_identify(path) for path in self.paths]
        return seen != self._seen

    def forget(self) -> None:
        """Make the next look find a change."""
        self._seen, self._looked_at = None, float("-inf")


def _identify(path: str) -> tuple[int, int, int] | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _no_password() -> str:
    raise ValueError("the key is encrypted; Consul's clients need one without a password")
