"""Reads the kit's own Kubernetes manifests: YAML templates beside the code that sends them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2
import yaml

Manifest = dict[str, Any]
"""One object as the API takes it in JSON, with `kind` and `metadata`."""


def read(template: Path, **values: object) -> tuple[Manifest, ...]:
    """Render a template and return its documents, in order. A placeholder without a value is an error.

    A template quotes its texts with the filter `quoted`, so that none is taken for a number, a boolean or YAML.
    """
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701  no HTML here
    )
    environment.filters["quoted"] = _quoted
    text = environment.from_string(template.read_text(encoding="utf-8")).render(**values)
    return tuple(yaml.safe_load_all(text))


def of_kind(manifests: Iterable[Manifest], kind: str) -> Manifest:
    """Return the only manifest of a kind."""
    (found,) = (each for each in manifests if each["kind"] == kind)
    return found


def _quoted(value: object) -> str:
    """A text for YAML: every string of JSON is one."""
    return json.dumps(str(value))
