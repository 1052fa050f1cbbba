"""pytest's options of the suite: they run it, fill in what a class leaves open, and report."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from svcreg.testing import report

PICKED = "every_field or every_allowed or cross or killed"
"""Some tests of the suite: passed, and skipped for want of a capability."""


def run_pytest(folder: Path, *arguments: str, status: int = 0) -> str:
    """Run pytest in a folder; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rs", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    printed = done.stdout + done.stderr
    assert done.returncode == status, printed
    return printed


def write(folder: Path, body: str) -> None:
    lines = ("from svcreg.testing import BackendConformance", "import pytest", "", body)
    (folder / "test_it.py").write_text("\n".join(lines) + "\n")


def test_suite_runs_with_nothing_written_and_reports_under_xdist(tmp_path: Path) -> None:
    # Neither a virtual environment around the suite nor tests of the folder's own are in the way.
    write(tmp_path, "def test_other():\n    assert False")
    found = tmp_path / "reports" / "report.json"
    printed = run_pytest(
        tmp_path, "-n2", "--svcreg-backend=memory", f"--svcreg-report={found}", f"-k{PICKED}"
    )
    assert "does not claim cross-process" in printed
    (case,) = report.load(found).cases
    assert case.name == "TestBackend"
    assert (case.backend, case.distribution, case.server) == ("memory", "svcreg", None)
    assert case.capabilities["ttl"].claimed
    assert not case.capabilities["cross-process"].claimed
    assert case.capabilities["cross-process"].skipped == 2
    assert (case.areas["records"].passed, case.areas["records"].failed) == (4, 0)
    outcomes = {(one.test, one.face): one.outcome for one in case.results}
    assert outcomes["test_node_is_found_with_every_field", "asyncio"] == "passed"
    assert outcomes["test_node_is_found_with_every_field", "blocking"] == "passed"
    skipped = [one.reason for one in case.results if one.outcome == "skipped"]
    assert skipped == ["the backend does not claim cross-process"] * 2


def test_options_fill_in_what_a_class_leaves_open(tmp_path: Path) -> None:
    write(
        tmp_path,
        "class TestOpen(BackendConformance):\n    faces = ('blocking',)\n"
        "class TestOwn(BackendConformance):\n    faces = ('blocking',)\n"
        "    @pytest.fixture\n    def backend(self):\n        return 'memory://own'\n"
        "    def test_url(self, registry_url):\n        assert registry_url == 'memory://own'\n",
    )
    options = ("--svcreg-backend=sqlite", f"--svcreg-address={tmp_path}/a.db", "--svcreg-report=r")
    run_pytest(tmp_path, "test_it.py", *options, "-kevery_field or test_url")
    cases = {case.name: case.backend for case in report.load(tmp_path / "r").cases}
    assert cases == {"test_it.py::TestOpen": "sqlite", "test_it.py::TestOwn": "memory"}


def test_failure_says_what_is_wrong_and_is_reported(tmp_path: Path) -> None:
    write(
        tmp_path,
        "class TestIt(BackendConformance):\n    backend = 'memory'\n    faces = ('blocking',)\n"
        "    name_limit = 20\n"
        "class TestNowhere(BackendConformance):\n    faces = ('blocking',)\n",
    )
    printed = run_pytest(
        tmp_path, "test_it.py", "--svcreg-report=r", "-kbeyond_the_limit", status=1
    )
    assert "TestNowhere does not say which backend: set `backend`" in printed
    (case,) = report.load(tmp_path / "r").cases
    (result,) = case.results
    assert result.outcome == "failed"
    assert "InvalidServiceError" in (result.reason or "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--svcreg-address=a:1"], "need --svcreg-backend"),
        (["--svcreg-backend=memory://a", "--svcreg-address=b"], "not both"),
        (["--svcreg-backend=memory", "--svcreg-server=a:1"], "is no part of memory"),
        (["--svcreg-backend=acmee"], "no backend 'acmee' is installed"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    tmp_path: Path, options: list[str], message: str
) -> None:
    assert message in run_pytest(tmp_path, *options, status=4)


def test_plugin_imports_nothing_of_svcreg_until_an_option_is_given(tmp_path: Path) -> None:
    loaded = "[m for m in sys.modules if m.split('.')[0] in ('svcreg', 'hypothesis')]"
    body = "import sys\n\n\ndef test_it():\n    assert '_svcreg_pytest' in sys.modules\n"
    (tmp_path / "test_it.py").write_text(f"{body}    assert {loaded} == []\n")
    run_pytest(tmp_path, "-p", "no:hypothesispytest")
