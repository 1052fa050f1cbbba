"""What importing costs: milliseconds more than a bare interpreter, medians of 20 runs.

`import svcreg` alone, then with the names that a program uses, which load on first use.
The kinds alternate, so that a busy machine slows all alike.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

RUNS = 20

SNIPPETS = {
    "bare interpreter": "pass",
    "import svcreg": "import svcreg",
    "svcreg.open, Service, Node": "from svcreg import Node, Service, open",
    "svcreg.aio": "import svcreg; svcreg.aio",
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
    base = statistics.median(times["bare interpreter"])
    for name, taken in times.items():
        total = statistics.median(taken)
        print(
            f"{name:28} {total * 1e3:6.1f} ms  {(total - base) * 1e3:+6.1f} ms"
            f"  ({total / base:.1f} x bare)"
        )


if __name__ == "__main__":
    main()
