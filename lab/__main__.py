"""The command `ha-lab` of an installed package: the verbs of tasks.py, for a lab in any folder."""

from __future__ import annotations

import os
import sys

from invoke.collection import Collection
from invoke.program import Program

from lab.system.paths import COMMAND, REPOSITORY
from lab.system.version import version


def main() -> None:
    """Read the line that was typed, and do it."""
    for name in [name for name in os.environ if name.startswith("INVOKE_")]:
        del os.environ[name]  # set for other work, as in `inv`
    # tasks.py is there, and the tests that `verify` runs.
    sys.path.insert(0, str(REPOSITORY))
    import tasks

    verbs = Collection.from_module(tasks)
    Program(version=version(), namespace=verbs, name="ha-lab", binary=COMMAND, binary_names=[COMMAND]).run()


if __name__ == "__main__":
    main()
