"""The contract as plugin authors read it is the contract in the code."""

from __future__ import annotations

import inspect
import re

import msgspec
import pytest

import svcreg
from svcreg.hookspecs import CAPABILITIES, REQUIRED_HOOKS, BackendSpec, ObserverSpec
from tests.support.documents import DOCS
from tests.unit.test_layering import PUBLIC

CONTRACT = (DOCS / "contract.md").read_text()
EXTENSIONS = (DOCS / "extensions.md").read_text()


def hooks_of(spec: type) -> dict[str, list[str]]:
    return {
        name: list(inspect.signature(function).parameters)[1:]
        for name, function in vars(spec).items()
        if name.startswith("svcreg_")
    }


def documented_hooks(page: str) -> dict[str, list[str]]:
    found = re.findall(r"^### (svcreg_\w+)\((.*)\)$", page, re.MULTILINE)
    return {name: arguments.split(", ") if arguments else [] for name, arguments in found}


def table(page: str, first_header: str) -> dict[str, str]:
    """The second column of a table by its first, without the backticks."""
    lines = page.split(f"| {first_header} |", 1)[1].splitlines()[2:]
    rows: dict[str, str] = {}
    for line in lines:
        if not line.startswith("|"):
            return rows
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        rows[cells[0].strip("`")] = cells[1]
    return rows


def test_every_hook_is_there_with_its_arguments() -> None:
    assert documented_hooks(CONTRACT) == hooks_of(BackendSpec)
    assert documented_hooks(EXTENSIONS) == hooks_of(ObserverSpec)


def test_every_hook_says_whether_it_is_required() -> None:
    said = re.findall(r"^### (svcreg_\w+)\(.*\)\n\n(Required|Optional)\.", CONTRACT, re.MULTILINE)
    required = {name: name in REQUIRED_HOOKS for name in hooks_of(BackendSpec)}
    assert {name: word == "Required" for name, word in said} == required


def test_every_capability_is_there_with_its_meaning() -> None:
    assert table(CONTRACT, "capability") == dict(CAPABILITIES)


@pytest.mark.parametrize(
    "name",
    ["Service", "Node", "Endpoint", "Value", "Snapshot", "Delta", "Config", "TLS"],
)
def test_every_field_of_what_is_passed_is_there(name: str) -> None:
    kind: type[msgspec.Struct] = getattr(svcreg, name)
    fields = re.findall(r"`(\w+)`", table(CONTRACT, "type")[name])
    assert sorted(fields) == sorted(kind.__struct_fields__)


def test_public_modules_are_named() -> None:
    paragraph = next(part for part in CONTRACT.split("\n\n") if "A backend may import" in part)
    sentence = paragraph.split("A backend may import")[1].split(";")[0]
    assert set(re.findall(r"`(svcreg[\w.]*)`", sentence)) == PUBLIC


def test_errors_are_those_there_are_with_the_retries_they_cause() -> None:
    rows = table(CONTRACT, "raise")
    outcome = {}
    for line in CONTRACT.split("| raise |", 1)[1].splitlines()[2:]:
        if line.startswith("|"):
            for name in re.findall(r"`(\w+Error)`", line.split("|")[1]):
                outcome[name] = "tries again" in line.split("|")[3]
    assert len(rows) == 7
    for name, is_retried in outcome.items():
        if hasattr(svcreg, name):
            assert getattr(svcreg, name).retryable == is_retried, name
        else:
            assert name in {"OSError", "TimeoutError"}
            assert is_retried


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.md")))
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#\s]+)(?:#[^)]*)?\)", (DOCS / page).read_text()):
        assert (DOCS / target).exists(), target
