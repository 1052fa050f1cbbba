"""What the conformance suite found, as JSON; and a set of such reports as a Markdown matrix.

    pytest --svcreg-backend=acme --svcreg-report=report.json
    python -m svcreg.testing.report report.json consul.json

A `Report` holds one `Case` per test class and backend. It holds no URL, which may hold a password.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from svcreg.hookspecs import CAPABILITIES
from svcreg.testing.facts import Measured

SCHEMA = 1
"""Of the JSON; raised when a reader of the former one would misunderstand."""

SUITE = 1
"""Of the suite; raised when a backend that passed may fail: a test more, or a stricter one."""

AREAS = {
    "records": "what is registered is found again",
    "watches": "a watch tells of everything once",
    "liveness": "who lives stays, who died goes",
    "hygiene": "closing leaves nothing behind",
    "garbage": "bad records hide no good ones",
    "machine": "random programs agree with a model",
    "faults": "the network fails",
    "restarts": "the server restarts",
}
"""Parts of the suite, by the name of their class in lower case."""


class Count(msgspec.Struct):
    """How many tests went how."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0


class Capability(Count):
    """Whether a backend claims it, and how the tests went that need it."""

    claimed: bool = False


class Result(msgspec.Struct, omit_defaults=True):
    """One test, through one face. `reason` says why it failed or was skipped."""

    test: str
    area: str
    outcome: Literal["passed", "failed", "skipped"]
    seconds: float
    face: str | None = None
    needs: list[str] = []
    reason: str | None = None
    measured: dict[str, Measured] = {}


class Case(msgspec.Struct):
    """One test class against one backend; `name` is the class's node id in pytest."""

    name: str
    backend: str
    distribution: str
    version: str
    server: str | None
    capabilities: dict[str, Capability]
    areas: dict[str, Count]
    results: list[Result] = []

    def add(self, result: Result) -> None:
        """Count a test in."""
        self.results.append(result)
        counts = [self.areas.setdefault(result.area, Count())]
        counts += [self.capabilities[need] for need in result.needs]
        for count in counts:
            setattr(count, result.outcome, getattr(count, result.outcome) + 1)


class Report(msgspec.Struct):
    """What one run of pytest found out."""

    core: str
    python: str
    schema: int = SCHEMA
    suite: int = SUITE
    cases: list[Case] = []


def load(path: Path) -> Report:
    """Read a report.

    Raises:
        ValueError: It is none, or of another schema.
    """
    try:
        report = msgspec.json.decode(path.read_bytes(), type=Report)
    except msgspec.MsgspecError as error:
        raise ValueError(f"{path} is no report of the conformance suite: {error}") from None
    if report.schema != SCHEMA:
        raise ValueError(f"{path} has schema {report.schema}; this version reads {SCHEMA}")
    return report


def matrix(reports: Iterable[Report], only: Sequence[str] = ()) -> str:
    """Return a Markdown table: one column per backend, one row per capability and area.

    Several cases of one backend, such as with and without TLS, make one column, which holds where
    all of them hold. Nothing in it depends on how long things took.
    """
    columns: dict[str, list[Case]] = {}
    made_by = set()
    for report in reports:
        made_by.add(f"suite {report.suite} of svcreg {report.core}")
        for case in report.cases:
            if not only or case.backend in only:
                columns.setdefault(case.backend, []).append(case)
    names = sorted(columns, key=only.index if only else None)
    rows = [["", *(f"`{name}`" for name in names)], ["---"] * (len(names) + 1)]
    rows.append(["plugin", *(_versions(columns[name]) for name in names)])
    rows.append(["server", *(_servers(columns[name]) for name in names)])
    rows.append(["configurations", *(str(len(_cases(columns[name]))) for name in names)])
    for capability in CAPABILITIES:
        row = [_claim([case.capabilities[capability] for case in columns[name]]) for name in names]
        rows.append([f"`{capability}`", *row])
    for area, meaning in AREAS.items():
        row = [
            _went([case.areas[area] for case in columns[name] if area in case.areas])
            for name in names
        ]
        rows.append([meaning, *row])
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return f"{table}\nMade by {' and '.join(sorted(made_by))}.\n"


def _versions(cases: Sequence[Case]) -> str:
    return ", ".join(sorted({f"{case.distribution} {case.version}" for case in cases}))


def _servers(cases: Sequence[Case]) -> str:
    return ", ".join(sorted({case.server for case in cases if case.server})) or "none"


def _cases(cases: Sequence[Case]) -> set[str]:
    return {case.name for case in cases}


def _claim(found: Sequence[Capability]) -> str:
    if not any(capability.claimed for capability in found):
        return "not claimed"
    return _went(found) if all(capability.claimed for capability in found) else "partly claimed"


def _went(counts: Sequence[Count]) -> str:
    if failed := sum(count.failed for count in counts):
        return f"**{failed} failed**"
    return "yes" if any(count.passed for count in counts) else "not tested"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the matrix of the reports that are named."""
    parser = argparse.ArgumentParser(
        prog="python -m svcreg.testing.report",
        description="Print reports of the conformance suite as a Markdown table.",
    )
    parser.add_argument("reports", nargs="+", type=Path, help="files of --svcreg-report")
    parser.add_argument("--only", nargs="*", default=[], help="these backends, in this order")
    given = parser.parse_args(arguments)
    try:
        reports = [load(path) for path in given.reports]
    except (OSError, ValueError) as error:
        parser.error(str(error))
    sys.stdout.write(matrix(reports, given.only))


if __name__ == "__main__":
    main()
