"""The suite over each broken backend; run by test_broken_backends.py, and expected to fail.

Each is run through whole parts of the suite, in one face, with bounds that a backend in this
process keeps easily.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from svcreg.testing import Server
from svcreg.testing.conformance.faults import Faults
from svcreg.testing.conformance.garbage import Garbage
from svcreg.testing.conformance.hygiene import Hygiene
from svcreg.testing.conformance.liveness import Liveness
from svcreg.testing.conformance.machine import Machine
from svcreg.testing.conformance.records import Records
from svcreg.testing.conformance.restarts import Restarts
from svcreg.testing.conformance.watches import Watches
from svcreg.testing.settings import PlantGarbage
from tests.conformance.broken.backends import garbage
from tests.conformance.broken.network import Registry


class Bounds:
    faces: Sequence[str] = ("asyncio",)
    grace = 0.5
    settle = 1.0
    rounds = 60


class TestGood(Bounds, Records, Watches, Liveness, Hygiene, Garbage, Machine):
    backend = "broken://Good"

    @pytest.fixture
    def plant_garbage(self) -> PlantGarbage:
        return garbage.add


class TestDropsTheEmptySnapshot(Bounds, Watches):
    backend = "broken://DropsTheEmptySnapshot"


class TestLosesTheSecondEvent(Bounds, Watches):
    backend = "broken://LosesTheSecondEvent"


class TestMissesChangesOfMetadata(Bounds, Watches):
    backend = "broken://MissesChangesOfMetadata"


class TestWatchesWithAGap(Bounds, Watches):
    backend = "broken://WatchesWithAGap"


class TestPollsAndClaimsPush(Bounds, Watches):
    backend = "broken://PollsAndClaimsPush"


class TestReadsByPrefix(Bounds, Records):
    backend = "broken://ReadsByPrefix"


class TestLosesEndpoints(Bounds, Records):
    backend = "broken://LosesEndpoints"


class TestListsWhatIsGone(Bounds, Records):
    backend = "broken://ListsWhatIsGone"


class TestResurrects(Bounds, Records, Liveness):
    backend = "broken://Resurrects"


class TestNeverExpires(Bounds, Liveness):
    backend = "broken://NeverExpires"


class TestForgetsToRenew(Bounds, Liveness):
    backend = "broken://ForgetsToRenew"


class TestWithdrawsItsSuccessor(Bounds, Liveness):
    backend = "broken://WithdrawsItsSuccessor"


class TestRenewsOverItsSuccessor(Bounds, Liveness):
    backend = "broken://RenewsOverItsSuccessor"


class TestBlocksTheLoop(Bounds, Liveness):
    backend = "broken://BlocksTheLoop"


class TestLeaksATask(Bounds, Hygiene):
    backend = "broken://LeaksATask"


class TestLeaksADescriptor(Bounds, Hygiene):
    backend = "broken://LeaksADescriptor"


class TestTellsSecrets(Bounds, Hygiene):
    backend = "broken://TellsSecrets"


class TestTakesLongToEnd(Bounds, Hygiene):
    backend = "broken://TakesLongToEnd"


class TestChokesOnGarbage(Bounds, Garbage):
    backend = "broken://ChokesOnGarbage"

    @pytest.fixture
    def plant_garbage(self) -> PlantGarbage:
        return garbage.add


class TestForgetsWhatItChanged(Bounds, Machine):
    backend = "broken://ForgetsWhatItChanged"


@pytest.fixture
def registry() -> Iterator[Registry]:
    """A small registry behind TCP."""
    registry = Registry()
    yield registry
    registry.stop()


class Network(Bounds, Faults):
    kind = "Right"
    grace = 1.0
    recovery = 4.0

    @pytest.fixture
    def backend(self, registry: Registry) -> str:
        return f"broken-tcp://{self.kind}@{registry.address}"

    @pytest.fixture
    def server(self, registry: Registry) -> Server:
        return registry


class TestRight(Network, Restarts):
    pass


class TestKeepsTrying(Network):
    kind = "KeepsTrying"


class TestSwallowsErrors(Network):
    kind = "SwallowsErrors"


class TestTakesPartForTheWhole(Network):
    kind = "TakesPartForTheWhole"


class TestReadsWithoutLimit(Network):
    kind = "ReadsWithoutLimit"


class TestLeaksWhenItFails(Network):
    kind = "LeaksWhenItFails"


class TestRemembersTheFirstFailure(Network):
    kind = "RemembersTheFirstFailure"
