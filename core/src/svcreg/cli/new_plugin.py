"""`svcreg new-plugin`: a complete distribution with a backend, to begin one's own from."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath

import click
import msgspec

import svcreg
from svcreg.cli.errors import FailedError
from svcreg.cli.output import write_json, write_line
from svcreg.cli.settings import Settings, common_options, pass_settings
from svcreg.config import check_backend_name

PREFIX = "svcreg-"
"""What the names of distributions with a backend begin with, so that they are found."""

NAME_LIMIT = 32
"""Characters of a plugin's name; with more the generated lines would be too long for its linter."""

_SUFFIX = ".tmpl"  # keeps linters, type checkers and packagers of svcreg off the files
_MODEL = re.compile("svcreg_acme|acme|Acme|ACME")


@click.command("new-plugin")
@click.argument("name")
@click.option(
    "--directory",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=".",
    help="Where to put it.  [default: the current directory]",
)
@common_options
@pass_settings
def command(settings: Settings, name: str, directory: Path) -> None:
    """Write a complete plugin for the backend NAME: svcreg-NAME, ready to publish.

    It works as it is, on a small server in memory in place of yours, and passes its own tests. JSON
    is an array of the files written.
    """
    check_plugin_name(name)
    target = directory / f"{PREFIX}{name}"
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise FailedError(f"{target} is there already; nothing was written")
    written = []
    for path, text in render(name):
        file = target / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        written.append(str(file))
    if settings.is_json:
        write_json(msgspec.json.encode(written))
        return
    write_line(f"wrote {target}: {len(written)} files. Now:")
    for step in next_steps(name, target):
        write_line(f"  {step}")


def check_plugin_name(name: str) -> None:
    """Return if a plugin may provide the backend `name`.

    Raises:
        click.UsageError: It is no name of a backend and a distribution, or is somebody else's.
    """
    if name.startswith((PREFIX, "svcreg_")):
        short = name[len(PREFIX) :]
        raise click.UsageError(f"NAME is the backend's alone; try: svcreg new-plugin {short}")
    try:
        check_backend_name(name)
    except svcreg.ConfigError:
        is_sound = False
    else:
        # The name of a distribution must end so.
        is_sound = name[-1].isalnum() and len(name) <= NAME_LIMIT
    if not is_sound:
        raise click.UsageError(
            f"{name!r} cannot name a plugin: it takes lower-case letters, digits, '-' and '_', "
            f"begins with a letter, ends with a letter or digit, and has at most {NAME_LIMIT}"
        )
    taken = svcreg.backends().get(name)
    if taken is not None and taken.distribution != f"{PREFIX}{name}":
        raise click.UsageError(
            f"the backend {name!r} is there already, in {taken.distribution} {taken.version}, "
            "and of two with one name neither loads; take another name"
        )


def render(name: str) -> Iterator[tuple[PurePosixPath, str]]:
    """Yield path and text of each file of the plugin for the backend `name`."""
    words = {
        "svcreg_acme": f"svcreg_{_identifier(name)}",
        "acme": name,
        "Acme": "".join(part.capitalize() for part in re.split("[-_]+", name)),
        "ACME": _identifier(name).upper(),
    }

    def renamed(text: str) -> str:
        return _MODEL.sub(lambda found: words[found[0]], text)

    for path, file in _files(files("svcreg.cli") / "plugin_template", PurePosixPath()):
        text = file.read_text(encoding="utf-8")
        yield PurePosixPath(renamed(str(path)).removesuffix(_SUFFIX)), renamed(text)


def next_steps(name: str, target: Path) -> list[str]:
    """Return the commands to type next, as docs/plugin-authors has them."""
    project = str(target) if target.is_absolute() else f"./{target}"  # or pip takes it for a name
    needed = [] if importlib.util.find_spec("pytest") else ["pip install 'svcreg[testing]'"]
    return [
        *needed,
        f"pip install -e {shlex.quote(project)}",
        f"MICRO_REGISTRY={name} svcreg list",
        f"cd {shlex.quote(str(target))} && pytest",
    ]


def _identifier(name: str) -> str:
    return name.replace("-", "_")


def _files(folder: Traversable, path: PurePosixPath) -> Iterator[tuple[PurePosixPath, Traversable]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _files(entry, path / entry.name)
        else:
            yield path / entry.name, entry
