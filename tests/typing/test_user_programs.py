"""Programs and plugins pass `mypy --strict` as a user runs it, and common mistakes do not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PROGRAMS = ("blocking_program.py", "asyncio_program.py", "plugin_module.py")

# Each line with a comment must be refused with that error code, and no other line may be.
MISTAKES = """\
import svcreg
from svcreg import Node, Service

def blocking() -> None:
    with svcreg.open() as registry:
        registry.get()  # call-arg
        registry.get(5)  # arg-type
        registry.register("greeter")  # arg-type
        registry.register(Service("greeter"), 90)  # call-arg
        registry.select("greeter").adress  # attr-defined
        registry.aclose()  # attr-defined
        registry.get("greeter").append(Service("x"))  # attr-defined

async def waiting() -> None:
    async with svcreg.aio.open() as registry:
        registry.list().count("greeter")  # attr-defined
        Node("greeter-1", 8080)  # arg-type
        Service("greeter").name = "other"  # misc
"""


def mypy(directory: Path, *paths: Path) -> subprocess.CompletedProcess[str]:
    """Run mypy away from this tree, so that its settings and search path are not used."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--no-error-summary"),
            *("--config-file", "", "--cache-dir", str(directory / "cache")),
            *(str(path) for path in paths),
        ],
        capture_output=True,
        text=True,
        cwd=directory,
        check=False,
    )


@pytest.mark.timeout(180)
def test_programs_pass_and_mistakes_are_found(tmp_path: Path) -> None:
    mistakes = tmp_path / "mistakes.py"
    mistakes.write_text(MISTAKES)
    result = mypy(tmp_path, *(HERE / program for program in PROGRAMS), mistakes)
    reports = [line for line in result.stdout.splitlines() if ": error: " in line]
    found = {
        (int(line.split(":")[1]), line.rpartition("[")[2].rstrip("]"))
        for line in reports
        if line.startswith("mistakes.py:")
    }
    expected = {
        (number, line.rpartition("# ")[2])
        for number, line in enumerate(MISTAKES.splitlines(), start=1)
        if "  # " in line
    }
    assert [line for line in reports if not line.startswith("mistakes.py:")] == []
    assert found == expected, result.stdout + result.stderr
