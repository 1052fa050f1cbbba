"""A newcomer types what docs/plugin-authors says, in a fresh environment, and all of it works."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from svcreg.cli.new_plugin import NAME_LIMIT, render
from tests.support.documents import commands

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("acme", "a-_b2", "the-longest-name".ljust(NAME_LIMIT, "x"))


def run(*command: str | Path, cwd: Path, path: str = "") -> str:
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    env["PATH"] = f"{path}{os.pathsep}{env['PATH']}" if path else env["PATH"]
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.parametrize("name", NAMES)
def test_generated_plugin_passes_linter_formatter_and_type_checker(
    name: str, tmp_path: Path
) -> None:
    for path, text in render(name):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    run(sys.executable, "-m", "ruff", "check", "--no-cache", ".", cwd=tmp_path)
    run(sys.executable, "-m", "ruff", "format", "--no-cache", "--check", ".", cwd=tmp_path)
    # The cache knows svcreg from the other names.
    cache = tmp_path.parent / "mypy-cache"
    assert "no issues" in run(sys.executable, "-m", "mypy", "--cache-dir", cache, cwd=tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_first_commands_of_the_documentation_work_as_they_stand(tmp_path: Path) -> None:
    wheels = tmp_path / "dist"
    build = (sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", wheels)
    run(*build, ROOT / "core", cwd=tmp_path)
    (wheel,) = wheels.glob("*.whl")
    typed = commands("README.md", "In five minutes")
    assert typed[:2] == [
        "python -m venv venv && . venv/bin/activate",
        "pip install 'svcreg[testing]'",
    ]
    venv.create(tmp_path / "venv", with_pip=True)
    binaries = str(tmp_path / "venv" / "bin")
    run("pip", "install", "--quiet", f"{wheel}[testing]", cwd=tmp_path, path=binaries)
    script = "set -eu\n" + "\n".join(typed[2:])
    output = run("bash", "-c", script, cwd=tmp_path, path=binaries)
    printed = output.splitlines()
    assert printed[0].startswith("wrote svcreg-acme: ")
    assert [line.strip() for line in printed[1:4]] == typed[3:]
    assert " passed" in output
    assert " failed" not in output
