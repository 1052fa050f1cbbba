"""Installed distributions for tests: real `dist-info` folders and modules, no mocks."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path

BACKENDS = "svcreg.backends"


class Distributions:
    """A folder of installed distributions, each in a folder of its own.

    Of its own, because importlib_metadata trusts what it saw of a folder until that folder's
    modification time changes, which two installations within one tick do not do.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folders: list[Path] = []
        self.on_install: Callable[[Path], object] = lambda folder: None

    def install(
        self,
        name: str,
        modules: Mapping[str, str],
        entry_points: Mapping[str, str],
        *,
        version: str = "1.0",
        group: str = BACKENDS,
        metadata: bool = True,
    ) -> Path:
        """Install a distribution and return its folder.

        Args:
            name: Of the distribution.
            modules: Source by module name; indentation common to all lines is taken off.
            entry_points: Value by entry point name.
            version: Of the distribution.
            group: Of the entry points.
            metadata: Whether METADATA is written, without which an installation is damaged.
        """
        folder = self.root / f"{len(self.folders)}-{name}"
        info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        if metadata:
            (info / "METADATA").write_text(
                f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            )
        points = "".join(f"{point} = {value}\n" for point, value in entry_points.items())
        (info / "entry_points.txt").write_text(f"[{group}]\n{points}")
        for module, source in modules.items():
            (folder / f"{module}.py").write_text(textwrap.dedent(source))
        self.folders.append(folder)
        self.on_install(folder)
        return folder

    def environment(self) -> dict[str, str]:
        """Return this process's environment for a child that is to see the same distributions."""
        found = [*map(str, self.folders), os.environ.get("PYTHONPATH", "")]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, found))}
