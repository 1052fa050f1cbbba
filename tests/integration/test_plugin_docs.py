"""What docs/plugin-authors shows is put together as its reader would, and works."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from svcreg.cli.new_plugin import render
from tests.support.documents import blocks, write
from tests.support.plugins import Distributions

STEPS = (1, 2, 3, 4)
CLAIMED = "blocking and (field or endpoints or each_change or process or child or predecessor)"
"""Tests of the suite for the steps on the way: what they claim, through one face."""

ALL = () if "SVCREG_ROUNDS" in os.environ else ("-k", "not asyncio")
"""For the last step the whole suite: through both faces in the long run, else through one."""


def run(*arguments: str, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    result = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def build(root: Path, step: int) -> None:
    """Make the tutorial's plugin as it is after a step."""
    for path, text in render("shelf"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    (root / "src/svcreg_shelf/server.py").unlink()
    for block in blocks("tutorial.md"):
        if block.path and int(block.section.split()[1].rstrip(":")) <= step:
            write(block, root)


@pytest.mark.parametrize("step", STEPS)
def test_each_step_of_the_tutorial_passes_linter_formatter_and_type_checker(
    step: int, tmp_path: Path
) -> None:
    build(tmp_path, step)
    run("ruff", "check", "--no-cache", ".", cwd=tmp_path)
    run("ruff", "format", "--no-cache", "--check", ".", cwd=tmp_path)
    cache = tmp_path.parent / "mypy-cache"  # knows svcreg from the other steps
    assert "no issues" in run("mypy", "--cache-dir", str(cache), cwd=tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("step", STEPS)
def test_each_step_of_the_tutorial_passes_its_own_tests(
    step: int, tmp_path: Path, distributions: Distributions
) -> None:
    build(tmp_path, step)
    distributions.install("svcreg-shelf", {}, {"shelf": "svcreg_shelf:ShelfBackend"})
    env = distributions.environment()
    env["PYTHONPATH"] = f"{tmp_path / 'src'}{os.pathsep}{env['PYTHONPATH']}"
    chosen = ALL if step == STEPS[-1] else ("-k", CLAIMED)
    output = run("pytest", "-q", "-rs", "-p", "no:cacheprovider", *chosen, cwd=tmp_path, env=env)
    skipped = set(re.findall(r"does not claim (.*)", output))
    unclaimed = {1: {"ttl", "fencing", "fencing and ttl"}, 2: {"fencing"}, 3: {"fencing"}, 4: set()}
    assert skipped == unclaimed[step]
    assert "not applicable" not in output


@pytest.mark.parametrize("page", ["tutorial.md", "extensions.md"])
def test_every_program_says_which_file_it_is(page: str) -> None:
    for block in blocks(page):
        assert block.path or block.language != "python", block.text[:100]


@pytest.mark.parametrize("folder", ["strategy", "observer", "command"])
def test_each_example_of_an_extension_passes_linter_and_type_checker(
    folder: str, tmp_path: Path
) -> None:
    for block in blocks("extensions.md"):
        if block.path.startswith(folder):
            write(block, tmp_path)
    run("ruff", "check", "--no-cache", ".", cwd=tmp_path)
    (file,) = tmp_path.glob("*/*.py")
    cache = tmp_path.parent / "mypy-cache"
    run("mypy", "--strict", "--cache-dir", str(cache), str(file), cwd=tmp_path)
