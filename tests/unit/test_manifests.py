from __future__ import annotations

from pathlib import Path

import jinja2
import pytest

from lab.health import manifests

TEMPLATE = """{# Two objects. #}
kind: Namespace
metadata: {name: {{ name | quoted }}}
---
kind: Pod
metadata:
  name: probe
{% for each in numbers %}
  n{{ each }}: {{ text | quoted }}
{% endfor %}
"""


@pytest.fixture
def template(tmp_path: Path) -> Path:
    (tmp_path / "objects.yaml.j2").write_text(TEMPLATE, encoding="utf-8")
    return tmp_path / "objects.yaml.j2"


@pytest.mark.parametrize("text", ["no", "010", "a: {b} # 'c' \"d\" <&>", "two\n\tlines\n", "{{ name }}", "키"])
def test_a_text_arrives_as_it_is(template: Path, text: str) -> None:
    namespace, pod = manifests.read(template, name="yes", numbers=(1, 2), text=text)
    assert namespace == {"kind": "Namespace", "metadata": {"name": "yes"}}
    assert pod == {"kind": "Pod", "metadata": {"name": "probe", "n1": text, "n2": text}}


def test_a_placeholder_without_a_value_is_an_error(template: Path) -> None:
    with pytest.raises(jinja2.UndefinedError, match="text"):
        manifests.read(template, name="yes", numbers=(1,))


def test_of_a_kind_there_is_exactly_one(template: Path) -> None:
    found = manifests.read(template, name="a", numbers=(), text="")
    assert manifests.of_kind(found, "Namespace")["metadata"] == {"name": "a"}
    for wrong in ((*found, *found), found[:1]):
        with pytest.raises(ValueError, match="values to unpack"):
            manifests.of_kind(wrong, "Pod")
