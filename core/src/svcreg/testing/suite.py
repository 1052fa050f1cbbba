"""What `pytest --svcreg-backend=...` runs when it is given no tests."""

from __future__ import annotations

from svcreg.testing import BackendConformance


class TestBackend(BackendConformance):
    """The suite against the backend that the options name."""
