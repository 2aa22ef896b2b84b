"""Converts a handout to a PDF: Chromium prints the HTML file."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from lab.errors import LabError
from lab.system import process

TIMEOUT = 180.0
"""Seconds for one handout; a few are usual."""

FLAGS = (
    *("--headless", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"),
    *(
        "--disable-component-update",
        "--disable-extensions",
        "--disable-default-apps",
        "--disable-dev-shm-usage",
    ),
    "--no-pdf-header-footer",
    # No name resolves, so that nothing leaves this machine.
    "--host-resolver-rules=MAP * ~NOTFOUND",
)


def write(page: Path, target: Path, *, mark: str) -> None:
    """Print an HTML file to `target`, completely or not at all, with `mark` after its end. Raises LabError."""
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory(prefix="ha-lab-pdf-") as folder:
        made = Path(folder) / "handout.pdf"
        process.run(
            [
                *("chromium", *FLAGS, *root, f"--user-data-dir={folder}/profile", f"--print-to-pdf={made}"),
                page.resolve().as_uri(),
            ],
            timeout=TIMEOUT,
            hint=f"the HTML file was written: {page}",
        )
        if not made.exists():
            raise LabError("Chromium created no PDF", hint=f"print the page from a browser: {page}")
        half = target.with_name(f".{target.name}.half")
        half.write_bytes(made.read_bytes() + f"%{mark}\n".encode())
        half.replace(target)
