"""The suite has been seen to fail: it finds what is wrong with each of these backends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from svcreg.testing import report
from tests.support.plugins import Distributions

ROOT = Path(__file__).resolve().parents[2]
POINTS = {
    "broken": "tests.conformance.broken.backends:build",
    "broken-tcp": "tests.conformance.broken.network:build",
}

# What fails for each backend, among other tests.
FOUND = {
    "DropsTheEmptySnapshot": "test_absent_service_is_waited_for",
    "LosesTheSecondEvent": "test_nodes_registered_together_are_one_event_each",
    "MissesChangesOfMetadata": "test_each_change_is_one_event",
    "WatchesWithAGap": "test_nothing_is_lost_between_reading_and_watching",
    "PollsAndClaimsPush": "test_changes_arrive_at_once",
    "ReadsByPrefix": "test_name_is_no_prefix",
    "LosesEndpoints": "test_endpoints_and_metadata_of_the_service_are_found",
    "ListsWhatIsGone": "test_names_are_listed_once_and_sorted",
    "Resurrects": "test_withdrawal_amid_renewals_is_final",
    "NeverExpires": "test_node_of_an_owner_that_hangs_goes_and_comes_back",
    "ForgetsToRenew": "test_renewals_go_on_while_the_application_is_blocked",
    "WithdrawsItsSuccessor": "test_predecessor_withdraws_no_successor",
    "RenewsOverItsSuccessor": "test_renewals_of_a_predecessor_leave_the_successor_alone",
    "BlocksTheLoop": "test_no_hook_holds_up_the_event_loop",
    "LeaksATask": "test_watches_that_nobody_needs_any_more_leave_nothing_running",
    "LeaksADescriptor": "test_nothing_is_left_running_or_open",
    "TakesLongToEnd": "test_watches_that_nobody_needs_any_more_leave_nothing_running",
    "TellsSecrets": "test_secrets_are_nowhere",
    "ChokesOnGarbage": "test_garbage_that_comes_ends_no_watch",
    "KeepsTrying": "test_outage_longer_than_the_ttl_is_made_good",
    "SwallowsErrors": "test_server_that_refuses_at_first_is_found_later",
    "TakesPartForTheWhole": "test_answers_that_are_cut_off_are_errors",
    "ReadsWithoutLimit": "test_answer_without_an_end_is_not_read_to_its_end",
    "LeaksWhenItFails": "test_outage_longer_than_the_ttl_is_made_good",
    "RemembersTheFirstFailure": "test_server_that_refuses_at_first_is_found_later",
}
SHRUNK = "ForgetsWhatItChanged"
NAMES = ("Good", "Right", SHRUNK, *FOUND)

MOST = 10
"""Tests that one defect makes fail, at most: more would not say what is wrong."""

GROUPS = 7
"""Processes for all of them: starting pytest costs more than most of these backends."""


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("group", [NAMES[n::GROUPS] for n in range(GROUPS)], ids=", ".join)
def test_suite_finds_what_is_wrong(group: Sequence[str], tmp_path: Path) -> None:
    failed, printed = run(group, tmp_path)
    assert set(failed) == set(group), printed
    for name in group:
        if name == SHRUNK:
            assert failed[name] == {"test_any_program_finds_what_a_model_of_it_has"}
            assert_short(printed)
        elif name in FOUND:
            assert FOUND[name] in failed[name], printed
            assert len(failed[name]) <= MOST, printed
        else:
            assert not failed[name], printed


def run(names: Sequence[str], folder: Path) -> tuple[dict[str, set[str]], str]:
    """Run the suite over backends; return which tests failed of each, and what was printed."""
    installed = Distributions(folder)
    installed.install("svcreg-broken", {}, POINTS)
    suites = [f"tests/conformance/broken/suites.py::Test{name}" for name in names]
    options = ("-q", "-p", "no:cacheprovider", "--tb=short", f"--svcreg-report={folder}/report")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *suites, *options],
        cwd=ROOT,
        env=installed.environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    failed = dict[str, set[str]]()
    for case in report.load(folder / "report").cases:
        results = {one.test for one in case.results if one.outcome == "failed"}
        failed[case.name.rpartition("::Test")[2]] = results
    return failed, done.stdout


def assert_short(printed: str) -> None:
    """Assert that the program which fails was shrunk to the steps that make it fail."""
    steps = [line.partition("state.")[2] for line in printed.splitlines() if "   state." in line]
    assert [step.partition("(")[0] for step in steps[:3]] == ["watch", "register", "update"]
    assert len(steps) <= 5, printed  # of up to twelve; the last one is `teardown`
