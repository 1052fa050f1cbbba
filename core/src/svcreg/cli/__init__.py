"""The `svcreg` command: one file per command, through the public API only.

Only `main` is for others. click and rich load when it is called, not when this package is imported.
"""

from __future__ import annotations

import sys
from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command line of this process and exit with its code."""
    try:
        from svcreg.cli.app import run

        code = run()
    except KeyboardInterrupt:  # while still importing, where no command could catch it
        code = 130
    sys.exit(code)
