"""`up`, `replace` and `stop`, killed with all processes that they started, at a random moment.

The next `up` ends with what lab.yaml says.
"""

from __future__ import annotations

import itertools
import random
import subprocess
import time

import pytest

from tests.labs.conftest import only_lab
from tests.lifecycle.conftest import LivingLab, kill_all

SHAPES = {2: ((1, 1), (1, 2), (3, 1), (1, 0)), 7: ((3, 3), (3, 2), (1, 3))}
"""How many control planes and workers lab.yaml names, in order, each time that `up` is killed: by the number of
machines that `--kills-from` names."""

UP, REPLACE, STOP = ("up", "--yes"), ("replace", "w1", "--yes"), ("stop",)
LATEST = {UP: 45, REPLACE: 45, STOP: 15}
"""Seconds after which each is killed at the latest; the first `up` makes everything, and is given 60."""


@pytest.mark.whole
def test_what_is_killed_at_random_moments_is_made_good_by_the_next_up(
    request: pytest.FixtureRequest,
) -> None:
    rounds, seed = request.config.getoption("--kills"), request.config.getoption("--seed")
    machines = request.config.getoption("--kills-from")
    shapes = SHAPES[machines]
    seed = time.time_ns() % 10**6 if seed is None else seed
    print(f"--seed {seed}")
    moments = random.Random(seed)  # noqa: S311  not for secrets
    nodes = {"control_planes": {"count": shapes[0][0]}, "workers": {"count": shapes[0][1]}}
    network = {"subnet": f"192.168.{65 + machines}.0/24"}
    with only_lab(f"ha-lab-kills-{machines}", network=network, nodes=nodes) as made:
        living = LivingLab(made)
        next_shape = itertools.cycle(shapes)
        workers = 0
        for number in range(rounds):
            verb = moments.choice(tuple(LATEST)) if workers else UP
            if verb == UP:
                control_planes, workers = next(next_shape)
                living.edit(control_planes=control_planes, workers=workers)
            after = moments.uniform(1, LATEST[verb] if number else 60)
            argv = living.lab.argv(*verb)
            with (living.lab.folder / f"killed-{number}.txt").open("wb") as out:
                process = subprocess.Popen(argv, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
                try:
                    process.wait(timeout=after)
                except subprocess.TimeoutExpired:
                    kill_all(process)
            healed = living.lab.succeed("up", "--yes")
            shape = f"{control_planes}+{workers}"
            print(f"{number}: {' '.join(verb)} of {shape}, killed after {after:.1f} s, {healed.seconds:.0f} s")
            assert living.plan()[0] == 0
            living.verified()
            time.sleep(1)
