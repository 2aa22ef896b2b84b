"""What all HTML pages share: each is one file that needs no other file and no network.

Style and script are inline, and a content security policy allows nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import jinja2
from jinja2.bccache import Bucket
from markupsafe import Markup

from lab.texts import Bilingual


class _Compiled(jinja2.BytecodeCache):
    """Caches compiled templates for the whole process, since a class has a page for each seat."""

    def __init__(self) -> None:
        """Start empty."""
        self.code: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        """Return a template's code, if it was compiled before; jinja uses it only for the same source."""
        if bucket.key in self.code:
            bucket.bytecode_from_string(self.code[bucket.key])

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Keep a template's code."""
        self.code[bucket.key] = bucket.bytecode_to_string()


_COMPILED = _Compiled()


def environment(folder: Path) -> jinja2.Environment:
    """Return the environment for a folder's templates: all values are escaped, a missing one is an error."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,
        bytecode_cache=_COMPILED,
    )


def both(said: Bilingual, element: str = "span") -> Markup:
    """Return a text in both languages, one of which is visible; once if they are the same."""
    if said.en == said.ko:
        return Markup.escape(said.en)
    parts = zip(("en", "ko"), said, strict=True)
    return Markup("").join(
        Markup('<{0} class="t" lang="{1}">{2}</{0}>').format(element, language, text)
        for language, text in parts
    )


def parts(folder: Path, *, connects: bool = False) -> dict[str, Markup]:
    """Return a folder's page.css as `style`, page.js as `script`, and the `policy` that only allows these.

    A page that `connects` may also ask the server that it came from.
    """
    style, script = ((folder / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    ) + ("; connect-src 'self'" if connects else "")
    texts = {"style": style, "script": script, "policy": policy}
    return {name: Markup(text) for name, text in texts.items()}  # noqa: S704  this repository's own files


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
