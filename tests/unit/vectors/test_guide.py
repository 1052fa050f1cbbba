"""What docs/guide/go-micro.md says is what the tests test, most of them in tests/interop."""

from __future__ import annotations

import re

from tests.support.gomicro import ROOT, SOURCES, version

GUIDE = (ROOT / "docs" / "guide" / "go-micro.md").read_text()
INTEROP = ROOT / "tests" / "interop"


def test_program_in_go_is_the_one_that_is_built() -> None:
    (program,) = re.findall(r"```go\n(.*?)```", GUIDE, re.S)
    assert program == (SOURCES / "greeter" / "main.go").read_text()


def test_version_of_the_other_side_is_the_one_that_is_built() -> None:
    assert f"go-micro {version()} " in GUIDE


def test_every_test_that_is_named_is_there() -> None:
    folders = (INTEROP, ROOT / "tests" / "integration" / "mdns")
    code = "".join(path.read_text() for folder in folders for path in folder.glob("test_*.py"))
    tests = set(re.findall(r"`(test_\w+)`", GUIDE))
    files = set(re.findall(r"`(test_\w+\.py)`", GUIDE))
    assert len(tests) > 10
    assert {name for name in tests if f"def {name}(" not in code} == set()
    assert {name for name in files if not (INTEROP / name).exists()} == set()
