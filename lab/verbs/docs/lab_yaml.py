"""docs/lab-yaml.md, generated from the shape of lab.yaml, the kit's own lab.yaml and a changed key's effect.

What a key may hold is what its rule says when it refuses a value: nothing is written twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from lab import config
from lab.config.shape import File
from lab.model.change import EFFECTS
from lab.model.roles import ROLES
from lab.system.paths import REPOSITORY

OWN = REPOSITORY / "lab.yaml"

HEAD = """\
# lab.yaml

Every setting of a lab is in its lab file. A key that is missing has its default, so an empty or missing file
is the lab of seven machines. `lab.yaml` has all keys with their defaults. These files work as they are:

- `examples/reference.yaml`: the addresses of the write-up that this kit automates.
- `examples/smallest.yaml`: one load balancer, one control plane, one worker.
- `examples/two-load-balancers.yaml`: two load balancers that share the API's address.
- `examples/external-etcd.yaml`: etcd on three machines of its own; `examples/external-etcd-small.yaml`: the
  same with one control plane and one worker.
- `examples/mirrors.yaml`: every mirror.

A mistake is reported with file, line and key, all mistakes at once, before anything is touched.

If you change only `network.subnet`, delete the `first_address` lines: the machines then move along with it.

With docker, `cpus` and `memory_mib` are not enforced: containers share the host's CPUs and memory, and only
`doctor` reads `memory_mib`.

The last column says what `./inv up` does when you change the key of a lab that exists;
[Changing a lab](lifecycle.md) has the details.

This page is generated from `lab/config/shape.py`, `lab/model/change.py` and `lab.yaml` by `./inv docs --write`.
"""

CHANGES = {
    "members": "adds or removes machines",
    "upgraded": "upgrades Kubernetes, one minor version at a time",
    "resized": "resizes machines, where the provider enforces sizes",
    "load-balancer": "reloads HAProxy with another configuration",
    "pod-network": "applies the manifest",
    "network-policy": "applies what enforces NetworkPolicies, or removes it",
    "addons": "installs or removes add-ons",
}
"""What a change of a key does, by the kind of its effect, where it is possible and touches machines."""


def page() -> str:
    """The text of the page."""
    explained = comments(OWN.read_text(encoding="utf-8"), config.lines(OWN))
    sections = [(name, list(_keys(name))) for name in File.model_fields]
    top = [(name, keys) for name, keys in sections if keys == [name]]
    text = [HEAD, _section("Top level", [key for _, keys in top for key in keys], explained)]
    for name, keys in sections:
        if (name, keys) not in top:
            text.append(_section(name, keys, explained))
    return "".join(text)


def _keys(name: str) -> Iterator[str]:
    """The keys at and below one, dotted."""
    annotation = _annotation(name)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for inner in annotation.model_fields:
            yield from _keys(f"{name}.{inner}")
    else:
        yield name


def _annotation(key: str) -> Any:
    section: Any = File
    for part in key.split("."):
        section = section.model_fields[part].annotation
    return section


def _section(title: str, keys: list[str], explained: dict[str, str]) -> str:
    rows = "".join(f"| `{key}` | {_default(key)} | {allowed(key)} | {_change(key)} |\n" for key in keys)
    parents = dict.fromkeys(
        ".".join(key.split(".")[:depth]) for key in keys for depth in range(1, key.count(".") + 2)
    )
    meanings = "".join(f"- `{key}`: {explained[key]}\n" for key in parents if explained.get(key))
    heading = title if " " in title else f"`{title}`"
    return (
        f"\n## {heading}\n\n| key | default | allowed | a change of it |\n| --- | --- | --- | --- |\n{rows}"
        + (f"\n{meanings}" if meanings else "")
    )


def _default(key: str) -> str:
    value: Any = File()
    for part in key.split("."):
        value = getattr(value, part)
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if value in ("", None, {}, [], ()):
        return _derived(key)
    return f"`{value}`"


def _derived(key: str) -> str:
    """The default of a key that the file leaves empty: of an address what the lab comes to, else none."""
    parts = key.split(".")
    if parts[-1] != "first_address":
        return "none"
    offset = next(spec.first_offset for spec in ROLES.values() if spec.config_key == parts[1])
    return f"`{File().network.subnet.network_address + offset}`"


NEVER: tuple[Any, ...] = (["!"], {"!": ["!"]})
"""Values that no key takes: the second for keys that hold keys."""


def allowed(key: str) -> str:
    """What a key may hold, in the words with which its rule refuses a value that none can be."""
    said = [sentence for value in NEVER if (sentence := _refusal(key, value))]
    if not said:
        raise ValueError(f"{key} takes anything")
    found = re.search(r"\((.*)\)$", said[0]) or re.search(r"\b(?:neither|is not|is no) (.*)$", said[0])
    return (found[1] if found else said[0]).replace("|", r"\|").replace(" nor ", " or ")


def _refusal(key: str, value: Any) -> str:
    """What the key's rule says of a value; "" where another rule refuses it."""
    data = value
    for part in reversed(key.split(".")):
        data = {part: data}
    try:
        File.model_validate(data, context={"folder": Path("/")})
    except ValidationError as error:
        last = error.errors(include_url=False)[-1]
        return str(last["ctx"]["error"]) if last["type"] == "value_error" else ""
    return ""


def _change(key: str) -> str:
    effect = EFFECTS[key]
    start = {"impossible": "impossible: ", "none": "touches no machine: "}.get(effect.kind)
    return CHANGES[effect.kind] if start is None else f"{start}{effect.why}"


def comments(text: str, lines: dict[str, int]) -> dict[str, str]:
    """The comment right above each key of a lab file, as one paragraph."""
    written = text.splitlines()
    found = {}
    for key, line in lines.items():
        block: list[str] = []
        for above in reversed(written[: line - 1]):
            if not above.lstrip().startswith("#"):
                break
            block.insert(0, above.lstrip().removeprefix("#").strip())
        found[key] = " ".join(block)
    return found
