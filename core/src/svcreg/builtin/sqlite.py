"""The registry of one machine: a file that its processes share, without server or network."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec

from svcreg.builtin.records import Key, group, split
from svcreg.builtin.sqlite_file import RegistryFile
from svcreg.builtin.sqlite_nodes import RecordReader
from svcreg.builtin.sqlite_poller import Poller
from svcreg.builtin.watcher import Watcher
from svcreg.config import Config
from svcreg.errors import ConfigError
from svcreg.hookspecs import Delta, Snapshot, hookimpl
from svcreg.model import Service


class SqliteOptions(msgspec.Struct, frozen=True):
    """There is nothing to set."""


class SqliteBackend:
    """Shares what is registered among all processes of this machine that open the same file.

    The file is `sqlite:///path/registry.db`, or by default `$XDG_STATE_HOME/svcreg/registry.db`, of
    this user alone; it and its folder are made on first use. Other processes see a change within
    100 ms. The TTL is counted on the machine's monotonic clock, which on Linux and macOS stands
    still while the machine sleeps.
    """

    capabilities = frozenset({"ttl", "push", "watch-all", "fencing", "endpoints", "cross-process"})
    default_address = "~/.local/state/svcreg/registry.db"

    def __init__(self, config: Config) -> None:
        config.parse_options(SqliteOptions)
        if len(config.addresses) > 1:
            raise ConfigError(
                "sqlite takes one file, as in sqlite:///path/registry.db, "
                f"not {len(config.addresses)}"
            )
        self._path = _absolute(config.addresses[0] if config.addresses else _default_path())
        self._owner = uuid.uuid4().hex
        self._mine: set[Key] = set()
        self._reader = RecordReader(self._path)
        # Two connections, so that reading never waits behind a writer that waits for its turn.
        self._to_write = RegistryFile(self._path, config.timeout)
        self._to_read = RegistryFile(self._path, config.timeout)
        self._poller = Poller(self._path, config.timeout, self._reader)

    @hookimpl
    def svcreg_close(self) -> None:
        self._poller.close()
        self._to_read.close()
        self._to_write.close()

    @hookimpl
    def svcreg_register(self, service: Service, ttl: float) -> None:
        with self._to_write.writing() as nodes:
            nodes.put(service, ttl, self._owner)
        self._mine.update(key for key, _ in split(service))

    @hookimpl
    def svcreg_deregister(self, service: Service) -> None:
        keys = [key for key, _ in split(service)]
        with self._to_write.writing() as nodes:
            nodes.remove([(key, self._owner if key in self._mine else None) for key in keys])
        self._mine.difference_update(keys)

    @hookimpl
    def svcreg_renew(self, services: Sequence[Service], ttl: float) -> Sequence[Service]:
        with self._to_write.writing() as nodes:
            return [one for one in services if not nodes.renew(one, ttl, self._owner)]

    @hookimpl
    def svcreg_get(self, name: str) -> Sequence[Service]:
        with self._to_read.reading() as nodes:
            rows = nodes.rows(name)
        return group(self._reader.read(rows))

    @hookimpl
    def svcreg_list(self) -> Sequence[str]:
        with self._to_read.reading() as nodes:
            names = nodes.names()
        return self._reader.valid_names(names)

    @hookimpl
    async def svcreg_watch(self, name: str | None) -> AsyncIterator[Snapshot | Delta]:
        watcher = Watcher(name)
        self._poller.add(watcher)
        try:
            while True:
                item = watcher.take()
                if item is None:
                    await watcher.wait()
                else:
                    yield item
        finally:
            self._poller.remove(watcher)


def _default_path() -> str:
    # XDG Base Directory Specification: a relative path in the variable is invalid and ignored.
    state = os.environ.get("XDG_STATE_HOME", "")
    folder = state if Path(state).is_absolute() else "~/.local/state"
    return f"{folder}/svcreg/registry.db"


def _absolute(path: str) -> Path:
    try:
        return Path(path).expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:  # no home, a loop of links, a null byte
        raise ConfigError(f"sqlite: {path} leads nowhere: {error}; name another file") from None
