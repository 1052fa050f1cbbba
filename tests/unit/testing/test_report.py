"""Reports of the suite become one table, which says no more than they do."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec
import pytest

from svcreg.hookspecs import CAPABILITIES
from svcreg.testing import conformance
from svcreg.testing.report import AREAS, Capability, Case, Report, Result, load, main, matrix


def case(name: str, backend: str, *claims: str, server: str | None = None) -> Case:
    capabilities = {one: Capability(claimed=one in claims) for one in CAPABILITIES}
    return Case(name, backend, f"svcreg-{backend}", "1.0", server, capabilities, {})


def result(
    outcome: Literal["passed", "failed", "skipped"] = "passed", *needs: str, seconds: float = 1.0
) -> Result:
    return Result("test_it", "watches", outcome, seconds, "asyncio", list(needs))


def cells(reports: list[Report], *only: str) -> dict[str, list[str]]:
    rows = [line.strip("| \n").split(" | ") for line in matrix(reports, only).splitlines()]
    return {row[0]: row[1:] for row in rows[1:]}


def test_column_holds_where_all_configurations_hold() -> None:
    plain, tls = (case(name, "acme", "ttl", "push", server="2") for name in ("a", "b"))
    for one in (plain, tls):
        one.add(result("passed", "ttl"))
        one.add(result("passed", "push"))
    tls.add(result("failed", "push"))
    found = cells([Report("1", "3"), Report("1", "3", cases=[plain, tls])])
    assert found["plugin"] == ["svcreg-acme 1.0"]
    assert found["server"] == ["2"]
    assert found["configurations"] == ["2"]
    assert found["`ttl`"] == ["yes"]
    assert found["`push`"] == ["**1 failed**"]
    assert found["`fencing`"] == ["not claimed"]
    assert found[AREAS["watches"]] == ["**1 failed**"]
    assert found[AREAS["restarts"]] == ["not tested"]


def test_capability_of_some_configurations_is_partly_claimed() -> None:
    found = cells([Report("1", "3", cases=[case("a", "acme", "ttl"), case("b", "acme")])])
    assert found["`ttl`"] == ["partly claimed"]


def test_claim_that_nothing_tested_is_no_yes() -> None:
    skipped = case("a", "acme", "ttl")
    skipped.add(result("skipped", "ttl"))
    assert cells([Report("1", "3", cases=[skipped])])["`ttl`"] == ["not tested"]


def test_table_does_not_depend_on_time_or_order() -> None:
    def reports(seconds: float, names: str) -> list[Report]:
        cases = [case(name, name, "ttl") for name in names]
        for one in cases:
            one.add(result("passed", "ttl", seconds=seconds))
        return [Report("1", "3", cases=[one]) for one in cases]

    assert matrix(reports(1, "abc")) == matrix(reports(2, "cab"))
    assert list(cells(reports(1, "abc"), "c", "a")["plugin"]) == ["svcreg-c 1.0", "svcreg-a 1.0"]


def test_every_part_of_the_suite_has_a_row() -> None:
    parts = {part.__name__.lower() for part in conformance.BackendConformance.__bases__}
    assert parts == set(AREAS)


def test_command_prints_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "report.json"
    report = Report("1", "3", cases=[case("a", "acme")])
    path.write_bytes(msgspec.json.encode(report))
    main([str(path)])
    assert capsys.readouterr().out == matrix([report])


@pytest.mark.parametrize(
    ("content", "message"),
    [("{}", "is no report"), ("[", "is no report"), ('"schema": 2', "has schema 2")],
)
def test_what_is_no_report_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "report.json"
    whole = msgspec.json.encode(Report("1", "3")).decode()
    path.write_text(whole.replace('"schema":1', content) if content.startswith('"') else content)
    with pytest.raises(ValueError, match=message):
        load(path)
