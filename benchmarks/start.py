"""The start-up time of `prm-gym --help`, with the core dependencies only or with all installed packages.

    python benchmarks/start.py        # five starts after a first one, which fills the file system's cache

Wall-clock time is what a person waits; processor time says the same on a machine that other programs share.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

STARTS = 5


def main() -> None:
    command = [sys.executable, "-m", "prm_gym.cli", "--help"]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    found = []
    for _ in range(STARTS):
        wall, before = time.perf_counter(), os.times()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        after = os.times()
        used = after.children_user - before.children_user + after.children_system - before.children_system
        found.append((used, time.perf_counter() - wall))
    processor, waited = (sorted(column)[STARTS // 2] for column in zip(*found, strict=True))
    print(f"prm-gym --help, median of {STARTS}: {processor:.2f} s of processor time, {waited:.2f} s by the clock")


if __name__ == "__main__":
    main()
