"""What every page of ours shares: one HTML file that needs nothing else and asks for nothing.

Its style and script stand in it, and its policy lets nothing run or load but these two.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import jinja2
from jinja2.bccache import Bucket
from markupsafe import Markup


class _Compiled(jinja2.BytecodeCache):
    """Templates as code, for all environments of this process: a class has a page for each seat."""

    def __init__(self) -> None:
        """Begin with none."""
        self.code: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        """Give a template's code, if it was compiled before; jinja takes it only for the same source."""
        if bucket.key in self.code:
            bucket.bytecode_from_string(self.code[bucket.key])

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Keep a template's code."""
        self.code[bucket.key] = bucket.bytecode_to_string()


_COMPILED = _Compiled()


def environment(folder: Path) -> jinja2.Environment:
    """Return what renders a folder's templates: all values are escaped, a missing one is an error."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,
        bytecode_cache=_COMPILED,
    )


def parts(folder: Path) -> dict[str, Markup]:
    """Return a folder's page.css as `style`, its page.js as `script`, the `policy` that lets only them in."""
    style, script = ((folder / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    texts = {"style": style, "script": script, "policy": policy}
    return {name: Markup(text) for name, text in texts.items()}  # noqa: S704  this repository's own files


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
