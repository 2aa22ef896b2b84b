"""Measures backup, recovery, checkpoint and restore on a lab that is up and healthy, some times each.

    .venv/bin/python -m tests.bench.operations --lab DIR/lab.yaml --rounds 3

Each round takes a backup, recovers from it, takes a checkpoint and restores it, and `verify` must be green
after both. Seconds are those of the whole command, as typed. The lab keeps its last state; backups and
checkpoints of these rounds are removed. Nothing else may run on the host meanwhile. Prints a table.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

from lab.system.paths import REPOSITORY

COMPLETE = re.compile(r"is complete after (\d+) s")
"""What `checkpoint` says before it starts the machines again."""


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--lab", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    readings: dict[str, list[float]] = defaultdict(list)
    for number in range(1, options.rounds + 1):
        _round(options.lab, number, readings)
    for what, seconds in readings.items():
        runs = ", ".join(f"{each:.0f}" for each in seconds)
        print(f"| {what} | {median(seconds):.0f} | {runs} |")


def _round(lab: Path, number: int, readings: dict[str, list[float]]) -> None:
    checkpoint = f"bench-{number}"
    with tempfile.TemporaryDirectory(prefix="ha-lab-bench-") as folder:
        backup = str(Path(folder) / "backup.tar")
        _timed(lab, "backup", backup, into=readings["backup"])
        _timed(lab, "recover", backup, "--yes", into=readings["recover"])
        _timed(lab, "verify", into=readings["verify"])
        said = _timed(lab, "checkpoint", checkpoint, into=readings["checkpoint, until the lab is healthy"])
        complete = COMPLETE.search(said)
        assert complete, said
        readings["checkpoint, until it is complete"].append(float(complete[1]))
        _timed(lab, "restore", checkpoint, "--yes", into=readings["restore"])
        _timed(lab, "verify", into=readings["verify"])
        _timed(lab, "checkpoints", "--remove", checkpoint, "--yes", into=[])


def _timed(lab: Path, *words: str, into: list[float]) -> str:
    """Run one verb, which must succeed; keep its seconds and return what it printed."""
    started = time.monotonic()
    ended = subprocess.run(
        [str(REPOSITORY / "inv"), *words, "--lab", str(lab)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - started
    print(f"{' '.join(words)}: {seconds:.1f} s, load {os.getloadavg()[0]:.1f}", flush=True)
    if ended.returncode != 0:
        sys.exit(f"{words[0]} ended with {ended.returncode}:\n{ended.stdout}")
    into.append(seconds)
    return ended.stdout


if __name__ == "__main__":
    main()
