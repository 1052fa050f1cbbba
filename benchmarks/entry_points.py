"""importlib_metadata against the standard library's importlib.metadata.

Each run is a fresh interpreter: one set imports the module only, the other also reads the entry
points of `svcreg.backends`, which is what choosing a backend costs. The kinds alternate, so that a
busy machine slows all alike; medians less a bare interpreter's.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

RUNS = 20

READ = "; tuple(m.entry_points(group='svcreg.backends'))"
SNIPPETS = {
    "bare": "pass",
    "import importlib.metadata": "import importlib.metadata as m",
    "import importlib_metadata": "import importlib_metadata as m",
    "entry points, importlib.metadata": "import importlib.metadata as m" + READ,
    "entry points, importlib_metadata": "import importlib_metadata as m" + READ,
}


def run(code: str) -> float:
    """Seconds a fresh interpreter takes for `code`, from start to exit."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-I", "-c", code], check=True)
    return time.perf_counter() - start


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in SNIPPETS}
    for code in SNIPPETS.values():
        run(code)  # writes the byte code
    for _ in range(RUNS):
        for name, code in SNIPPETS.items():
            times[name].append(run(code))
    extra = {
        name: (statistics.median(taken) - statistics.median(times["bare"])) * 1e3
        for name, taken in times.items()
    }
    for kind in ("import ", "entry points, "):
        stdlib = extra[f"{kind}importlib.metadata"]
        backport = extra[f"{kind}importlib_metadata"]
        print(f"{kind}importlib.metadata   {stdlib:6.1f} ms")
        print(f"{kind}importlib_metadata   {backport:6.1f} ms   ({backport / stdlib:.2f} x)")


if __name__ == "__main__":
    main()
