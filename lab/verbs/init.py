"""Writes a lab file to begin with."""

from __future__ import annotations

from pathlib import Path

from lab.errors import ConfigError, LabStateError
from lab.system.paths import REPOSITORY
from lab.system.terminal import naming

DEFAULT = REPOSITORY / "lab.yaml"
EXAMPLES = REPOSITORY / "examples"


def init(target: Path, example: str) -> None:
    """Write the default lab file, or an example, to `target`, and make its folder.

    Raises ConfigError for an example that there is not, LabStateError where there is a file already.
    """
    if target.exists():
        raise LabStateError(
            f"{target} is there already, and was not changed",
            hint="edit it, or write another: `./inv init --lab FOLDER/lab.yaml`",
        )
    source = EXAMPLES / f"{example}.yaml" if example else DEFAULT
    if example and source not in EXAMPLES.glob("*.yaml"):
        known = ", ".join(sorted(path.stem for path in EXAMPLES.glob("*.yaml")))
        raise ConfigError([f"there is no example {example!r}"], hint=f"the examples: {known}")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(naming(source.read_text(encoding="utf-8"), ""), encoding="utf-8")
