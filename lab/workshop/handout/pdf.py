"""Prints a handout: Chromium makes a PDF of the HTML file, which reads the same on paper."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from lab.errors import LabError
from lab.system import process

TIMEOUT = 180.0
"""Seconds for one handout; some are usual."""

FLAGS = (
    *("--headless", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"),
    *(
        "--disable-component-update",
        "--disable-extensions",
        "--disable-default-apps",
        "--disable-dev-shm-usage",
    ),
    "--no-pdf-header-footer",
    # Nothing that a page names is ever found, so nothing leaves this machine.
    "--host-resolver-rules=MAP * ~NOTFOUND",
)


def write(page: Path, target: Path, *, mark: str) -> None:
    """Print an HTML file to `target`, whole or not at all, with `mark` behind its end. Raises LabError."""
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory(prefix="ha-lab-pdf-") as folder:
        made = Path(folder) / "handout.pdf"
        process.run(
            [
                *("chromium", *FLAGS, *root, f"--user-data-dir={folder}/profile", f"--print-to-pdf={made}"),
                page.resolve().as_uri(),
            ],
            timeout=TIMEOUT,
            hint=f"the HTML file is made all the same: {page}",
        )
        if not made.exists():
            raise LabError("Chromium made no PDF", hint=f"print it from a browser: {page}")
        half = target.with_name(f".{target.name}.half")
        half.write_bytes(made.read_bytes() + f"%{mark}\n".encode())
        half.replace(target)
