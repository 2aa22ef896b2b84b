from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import pytest

from lab.drill import onepage


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the templates that were compiled."""
    found: list[str] = []
    compile_ = jinja2.Environment.compile

    def keep(self: jinja2.Environment, source: Any, name: str, *words: Any, **named: Any) -> Any:
        found.append(name)
        return compile_(self, source, name, *words, **named)

    monkeypatch.setattr(jinja2.Environment, "compile", keep)
    return found


def rendered(folder: Path, **said: str) -> str:
    """Render the folder's page by an environment of its own, as each page has one."""
    environment = onepage.environment(folder)
    environment.globals |= said
    return environment.get_template("page.html.j2").render()


def test_a_template_is_compiled_once_for_all_pages_and_again_when_it_changes(
    tmp_path: Path, compiled: list[str]
) -> None:
    template = tmp_path / "page.html.j2"
    template.write_text("{{ what }}!")
    assert [rendered(tmp_path, what=each) for each in ("a", "<b>")] == ["a!", "&lt;b&gt;!"]
    assert compiled == ["page.html.j2"]
    template.write_text("{{ what }}?")
    assert rendered(tmp_path, what="a") == "a?"
    assert len(compiled) == 2
