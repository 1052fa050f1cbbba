"""What `import svcreg` costs: milliseconds more than a bare interpreter, median of 20 runs.

Both kinds of run alternate, so that a busy machine slows both alike.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

RUNS = 20


def run(code: str) -> float:
    """Seconds a fresh interpreter takes for `code`, from start to exit."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-I", "-c", code], check=True)
    return time.perf_counter() - start


def main() -> None:
    run("import svcreg")  # writes the byte code
    bare, ours = [], []
    for _ in range(RUNS):
        bare.append(run("pass"))
        ours.append(run("import svcreg"))
    base, total = statistics.median(bare), statistics.median(ours)
    print(f"bare interpreter   {base * 1e3:6.1f} ms")
    print(f"with import svcreg {total * 1e3:6.1f} ms")
    print(f"extra              {(total - base) * 1e3:6.1f} ms   ({total / base:.2f} x bare)")


if __name__ == "__main__":
    main()
