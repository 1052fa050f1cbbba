"""One suite for every backend: what core promises its users, checked through both faces."""

from __future__ import annotations

from svcreg.testing.conformance.faults import Faults
from svcreg.testing.conformance.garbage import Garbage
from svcreg.testing.conformance.hygiene import Hygiene
from svcreg.testing.conformance.liveness import Liveness
from svcreg.testing.conformance.machine import Machine
from svcreg.testing.conformance.records import Records
from svcreg.testing.conformance.restarts import Restarts
from svcreg.testing.conformance.watches import Watches

__all__ = ["BackendConformance"]


class BackendConformance(Records, Watches, Liveness, Hygiene, Garbage, Machine, Faults, Restarts):
    """Subclass it, say where the registry is, and pytest runs the suite against it.

    The registry is `backend`, an attribute or, where it must be started first, a fixture. Every
    registry opened with that URL must reach the same store, from other processes too where the
    backend claims `cross-process`. The store may hold anything else: every test uses names of its
    own, so that tests may run at the same time.

    A test of a capability that the backend does not declare is skipped, and says so; so is one
    that needs a `server` to disturb, or `plant_garbage`, and has none. See
    `svcreg.testing.conformance.base.Base` for these, and for the bounds that a backend may widen.
    """
