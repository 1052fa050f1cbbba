"""Collects what the tests of the suite say, and writes the report when pytest ends.

Lives in the process that reports: under xdist that is the one that runs no tests.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Literal

import importlib_metadata
import msgspec
import pytest

from svcreg.hookspecs import CAPABILITIES
from svcreg.testing import facts
from svcreg.testing.report import Capability, Case, Report, Result

REASON_LIMIT = 500
"""Characters of a failure's message that the report keeps."""

Outcome = Literal["passed", "failed", "skipped"]


class Reporter:
    """A pytest plugin that writes `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._parts: dict[str, list[pytest.TestReport]] = {}
        self._cases: dict[tuple[str, str], Case] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        parts = self._parts.setdefault(report.nodeid, [])
        parts.append(report)
        if report.when == "teardown":  # the last part, which has all properties
            del self._parts[report.nodeid]
            found = facts.read(report.user_properties)
            if found is not None and found.backend is not None:
                # The suite itself is outside the tests' folder, so that it has no path there.
                name = report.nodeid.rpartition("::")[0].removeprefix("::")
                self._case(name, found).add(_result(found, parts))

    def pytest_sessionfinish(self) -> None:
        cases = [case for _, case in sorted(self._cases.items())]
        for case in cases:
            case.results.sort(key=lambda result: (result.area, result.test, result.face or ""))
        report = Report(
            importlib_metadata.version("svcreg"), platform.python_version(), cases=cases
        )
        encoded = msgspec.json.format(msgspec.json.encode(report), indent=2)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_bytes(encoded + b"\n")

    def _case(self, name: str, found: facts.Facts) -> Case:
        backend = found.backend or ""
        if (name, backend) not in self._cases:
            self._cases[name, backend] = Case(
                name,
                backend,
                found.distribution,
                found.version,
                found.server,
                {c: Capability(claimed=c in found.capabilities) for c in CAPABILITIES},
                {},
            )
        return self._cases[name, backend]


def _result(found: facts.Facts, parts: list[pytest.TestReport]) -> Result:
    outcome: Outcome = "passed"
    reason = None
    for part in parts:
        if part.failed:
            outcome, reason = "failed", _message(part)
            break
        if part.skipped:
            outcome, reason = "skipped", _message(part)
    return Result(
        found.test,
        found.area,
        outcome,
        round(sum(part.duration for part in parts), 3),
        found.face,
        found.needs,
        reason,
        found.measured,
    )


def _message(part: pytest.TestReport) -> str:
    if isinstance(part.longrepr, tuple):  # of a skip: file, line, message
        return part.longrepr[2].removeprefix("Skipped: ")
    crash = getattr(part.longrepr, "reprcrash", None)
    message: str = part.longreprtext if crash is None else crash.message
    return message[:REASON_LIMIT]
