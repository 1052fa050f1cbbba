"""What pytest does when an option of svcreg is given: run the suite by itself, write the report."""

from __future__ import annotations

from pathlib import Path

import pytest

from svcreg.config import load_config
from svcreg.errors import ConfigError
from svcreg.plugins import load_factory
from svcreg.testing.reporter import Reporter

SUITE = Path(__file__).with_name("suite.py")


def begin(config: pytest.Config) -> None:
    """Obey the options; called once per process of a run, also in xdist's workers.

    Raises:
        pytest.UsageError: The options make no sense together, or name nothing that is installed.
    """
    url = given_backend(config)
    try:
        if url:
            load_factory(load_config(url).backend)
    except ConfigError as error:
        raise pytest.UsageError(str(error)) from None
    is_worker = hasattr(config, "workerinput")  # of xdist; it reads the command line as well
    if url and config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.args = [str(SUITE)]
    if url:
        config.pluginmanager.register(_SuiteFinder(), "svcreg-suite")
    report = config.getoption("--svcreg-report")
    if report and not is_worker:
        config.pluginmanager.register(
            Reporter(config.invocation_params.dir / report), "svcreg-report"
        )


def given_backend(config: pytest.Config) -> str | None:
    """Return the URL that the options name.

    Raises:
        pytest.UsageError: They contradict each other.
    """
    # By default None: svcreg may have been installed over a metadata that knew no options yet.
    name, address, server = (
        config.getoption(f"--svcreg-{option}", None) for option in ("backend", "address", "server")
    )
    if not name:
        if address or server:
            raise pytest.UsageError("--svcreg-address and --svcreg-server need --svcreg-backend")
        return None
    if address and "://" in name:
        raise pytest.UsageError("give --svcreg-backend as a URL or with --svcreg-address, not both")
    url = f"{name}://{address}" if address else name
    if server and server not in url:
        raise pytest.UsageError(
            f"--svcreg-server {server} is no part of {url}: the suite would not meet its failures"
        )
    return str(url)


class _SuiteFinder:
    """Lets pytest find the suite inside a virtual environment, where it looks for no tests."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        return False if SUITE.is_relative_to(collection_path) else None
