"""The options that pytest gains from svcreg; what they do is in `svcreg.testing.session`.

pytest loads this module in every run wherever svcreg is installed, before it measures coverage. So
it stands outside the package, and imports nothing of it until an option is given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

OPTIONS = {
    "--svcreg-backend": ("NAME|URL", "backend that the conformance suite is run against"),
    "--svcreg-address": ("ADDRESS", "where its registry is, if the backend is given by name"),
    "--svcreg-server": ("HOST:PORT", "TCP server behind that address, for tests of its failures"),
    "--svcreg-report": ("FILE", "write what the conformance suite found, as JSON"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("svcreg", "conformance of svcreg backends")
    for option, (metavar, text) in OPTIONS.items():
        group.addoption(option, metavar=metavar, help=text)


def pytest_configure(config: pytest.Config) -> None:
    """Start what the options ask for, if any is given."""
    if any(config.getoption(option) for option in OPTIONS):
        from svcreg.testing.session import begin

        begin(config)
