"""`up` killed outright, with all that it started, at a random moment.

The next `up` ends with what lab.yaml says.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time

import pytest

from tests.labs.conftest import make_lab
from tests.lifecycle.conftest import LivingLab

SHAPES = ((1, 1), (1, 2), (3, 1), (1, 0))
"""How many control planes and workers lab.yaml names, round by round; each change is killed on its way."""


def _kill_all(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL for a command and everything that it has started, sessions of their own included."""
    for pid in [*_children(process.pid), process.pid]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def _children(pid: int) -> list[int]:
    found = []
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    for child in map(int, listed.stdout.split()):
        found += [*_children(child), child]
    return found


def test_up_is_killed_at_random_moments(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rounds, seed = request.config.getoption("--kills"), request.config.getoption("--seed")
    seed = time.time_ns() % 10**6 if seed is None else seed
    print(f"--seed {seed}")
    moments = random.Random(seed)  # noqa: S311  not for secrets
    made = make_lab(
        tmp_path_factory.mktemp("kills") / "lab",
        name="ha-lab-kills",
        network={"subnet": "192.168.61.0/24"},
        nodes={"control_planes": {"count": 1}, "workers": {"count": 1}},
    )
    living = LivingLab(made)
    try:
        for number in range(rounds):
            control_planes, workers = SHAPES[number % len(SHAPES)]
            living.edit(control_planes=control_planes, workers=workers)
            after = moments.uniform(1, 60 if number == 0 else 45)
            argv = living.lab.argv("up", "--yes")
            with (living.lab.folder / f"killed-{number}.txt").open("wb") as out:
                process = subprocess.Popen(argv, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
                try:
                    process.wait(timeout=after)
                except subprocess.TimeoutExpired:
                    _kill_all(process)
            healed = living.lab.succeed("up", "--yes")
            print(f"{number}: {control_planes}+{workers}, killed after {after:.1f} s, {healed.seconds:.0f} s")
            assert living.plan()[0] == 0
            living.verified()
            time.sleep(1)
    finally:
        living.lab.inv("destroy", "--yes")
