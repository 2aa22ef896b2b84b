"""Writes a bill of materials as CycloneDX 1.6 in JSON, and reads it back.

The same materials give the same bytes: there is no time in the document, and its serial number is derived from
the rest, since the golden machine is named by what goes into it.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator
from typing import Any, cast

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.spdx import is_supported_id
from packageurl import PackageURL

from lab.golden.supply.bom import Kind, Material
from lab.golden.supply.licences import UNKNOWN

PREFIX = "ha-lab:"
"""What the names of the kit's own properties begin with: kind, used-in, go-sum, copyright-file."""

SERIES = uuid.UUID("6e1c7e53-9f0c-4f4e-8f6e-0d7a3b1f5a11")
"""The namespace (RFC 9562, 5.5) of the serial numbers; a random number, made once."""

SHA256 = "sha256:"

TYPES: dict[Kind, ComponentType] = {
    "c-source": ComponentType.APPLICATION,
    "toolchain": ComponentType.APPLICATION,
    "upstream-file": ComponentType.APPLICATION,
    "upstream-image": ComponentType.CONTAINER,
    "operating-system": ComponentType.OPERATING_SYSTEM,
}
"""CycloneDX's type of each kind of material; a kind that is not here is a library."""


def dump(materials: Iterable[Material]) -> str:
    """Return the document for some materials; equal ones are listed once."""
    distinct = sorted(set(materials), key=lambda each: (each.kind, each.name, each.version, each.checksum))
    bom = Bom(components=[_component(material, _reference(material)) for material in distinct])
    content: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    # The library always writes the present time and a random serial number.
    for name in ("metadata", "serialNumber"):
        del content[name]
    serial = uuid.uuid5(SERIES, json.dumps(content, sort_keys=True))
    return json.dumps(content | {"serialNumber": serial.urn}, indent=1, sort_keys=True) + "\n"


def load(content: dict[str, Any]) -> tuple[Material, ...]:
    """Return the materials that `dump` has written, in its order of kind, name and version."""
    # The library gives these methods to its classes at run time, where its types don't show them.
    bom = cast(Any, Bom).from_json(data=content)
    found = [_material(component) for component in bom.components]
    return tuple(sorted(found, key=lambda each: (each.kind, each.name, each.version, each.checksum)))


def package_url(material: Material) -> PackageURL:
    """Return the package URL (purl-spec) by which scanners and databases of vulnerabilities know a material.

    A Debian package names its source package as `upstream`, since Debian's security tracker goes by those. Go's
    toolchain is Go's standard library here: that part of it is in the programs.
    """
    version = None if material.version == UNKNOWN else material.version
    place, _, name = material.name.rpartition("/")
    match material.kind:
        case "go-module":
            return PackageURL("golang", place or None, name, version)
        case "debian-package":
            return PackageURL("deb", "debian", material.name, version, _qualifiers(material))
        case "upstream-file":
            return PackageURL("generic", None, material.name, version, _qualifiers(material))
        case "upstream-image":
            qualifiers = {"repository_url": material.name, "tag": material.version}
            return PackageURL("oci", None, name, material.checksum or None, qualifiers)
        case "toolchain" if material.name == "go":
            return PackageURL("golang", None, "stdlib", version)
        case _:
            return PackageURL("generic", None, material.name, version)


def _qualifiers(material: Material) -> dict[str, str]:
    named = {"arch": material.architecture, "distro": material.distribution, "upstream": material.source}
    return {name: value for name, value in named.items() if value}


def _reference(material: Material) -> str:
    """A name for one component of the document. Two programs can name one module with and without its sum."""
    return f"{package_url(material)}#{material.checksum}" if material.checksum else str(package_url(material))


def _component(material: Material, reference: str) -> Component:
    digest = material.checksum.removeprefix(SHA256)
    hashed = digest != material.checksum
    properties: list[tuple[str, str]] = [("kind", material.kind)]
    properties += [("used-in", program) for program in material.used_in]
    if material.checksum and not hashed:
        properties.append(("go-sum", material.checksum))
    if material.kind == "debian-package":
        properties.append(("copyright-file", f"/usr/share/doc/{material.name}/copyright"))
    # CycloneDX has an operating system as a thing of its own, without a package URL.
    return Component(
        name=material.name,
        version=material.version,
        type=TYPES.get(material.kind, ComponentType.LIBRARY),
        bom_ref=reference,
        purl=None if material.kind == "operating-system" else package_url(material),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)] if hashed else [],
        licenses=_licences(material.licence),
        properties=[Property(name=f"{PREFIX}{name}", value=value) for name, value in properties],
    )


def _licences(licence: str) -> list[DisjunctiveLicense | LicenseExpression]:
    """One SPDX id or expression; where a part is unknown, an entry for each part, as no expression has it."""
    parts = licence.split(" AND ")
    if UNKNOWN in parts or is_supported_id(licence):
        return [
            DisjunctiveLicense(id=part) if is_supported_id(part) else DisjunctiveLicense(name=part)
            for part in parts
        ]
    return [LicenseExpression(licence)]


def _material(component: Component) -> Material:
    given = list(_properties(component))
    sums = [value for name, value in given if name == "go-sum"]
    sums += [f"{SHA256}{each.content}" for each in component.hashes]
    licences = [
        each.value if isinstance(each, LicenseExpression) else each.id or each.name or UNKNOWN
        for each in component.licenses
    ]
    known = cast(dict[str, str], component.purl.qualifiers if component.purl else {})
    return Material(
        cast(Kind, next(value for name, value in given if name == "kind")),
        component.name,
        component.version or UNKNOWN,
        " AND ".join(sorted(licences)),
        sums[0] if sums else "",
        tuple(value for name, value in given if name == "used-in"),
        known.get("arch", ""),
        known.get("distro", ""),
        known.get("upstream", ""),
    )


def _properties(component: Component) -> Iterator[tuple[str, str]]:
    for each in component.properties:
        if each.name.startswith(PREFIX):
            yield each.name.removeprefix(PREFIX), each.value or ""
