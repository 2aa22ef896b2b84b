"""Reads flannel's manifest: the pinned module's own, kept beside its pin for both sources."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from lab.golden.supply.releases import Release

PLUGIN_STEP = "install-cni-plugin"
"""The step of flannel's DaemonSet that brings its CNI plugin: the golden machine has that already."""


def manifest(release: Release) -> str:
    """Return flannel's manifest for the golden machine: without the step that brings the plugin."""
    documents = list(_documents(_pinned(release)))
    for spec in _daemon_specs(documents):
        spec["initContainers"] = [step for step in spec["initContainers"] if step["name"] != PLUGIN_STEP]
        spec["volumes"] = [volume for volume in spec["volumes"] if volume["name"] != "cni-plugin"]
    return yaml.safe_dump_all(documents, sort_keys=False)


def agent_image(text: str) -> str:
    """Return the image of flannel's agent, as a manifest's text names it."""
    return next(str(spec["containers"][0]["image"]) for spec in _daemon_specs(list(_documents(text))))


def plugin_image(release: Release) -> str:
    """Return the image that flannel's CNI plugin is in."""
    for spec in _daemon_specs(list(_documents(_pinned(release)))):
        for step in spec["initContainers"]:
            if step["name"] == PLUGIN_STEP:
                return str(step["image"])
    raise LookupError(f"flannel {release.flannel}'s manifest has no step {PLUGIN_STEP}")


def _pinned(release: Release) -> str:
    path: Path = release.pins()["flannel"] / "kube-flannel.yml"
    return path.read_text(encoding="utf-8")


def _documents(text: str) -> Iterator[dict[str, Any]]:
    return (document for document in yaml.safe_load_all(text) if document)


def _daemon_specs(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [each["spec"]["template"]["spec"] for each in documents if each["kind"] == "DaemonSet"]
