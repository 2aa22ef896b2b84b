"""Entries are cut out of a text, and every byte of the rest stays."""

from __future__ import annotations

import pytest
import yaml

from lab.workspace import yaml_entries

KINDS = ("clusters", "users", "contexts")
THEIRS = """\
# mine, by hand
apiVersion: v1
kind: Config
preferences: {colors: true}   # kept as it is
clusters:
  - name: work
    cluster: {server: "https://work.example:6443", extra: kept}
@cluster@  # after the clusters
  - cluster:
      server: https://other.example
    name: other
users:
@user@  - name: work
    user: {token: theirs}
contexts:
  - name: work
    context: {cluster: work, user: work, namespace: theirs}
@context@

current-context: work
"""
ENTRIES = {
    "cluster": """  - name: ha-lab
    cluster:
      server: https://192.168.56.10:6443
      certificate-authority-data: Y2E=
""",
    "user": """  - user:
      client-key-data: |
        aGVsbG8=
    name: ha-lab
""",
    "context": "  - {name: ha-lab, context: {cluster: ha-lab, user: ha-lab}}\n",
}


def filled(text: str, entries: dict[str, str]) -> str:
    for kind in ENTRIES:
        text = text.replace(f"@{kind}@", entries.get(kind, ""))
    return text


def without(text: str) -> str:
    return yaml_entries.without(text, KINDS, "ha-lab", "current-context")


def test_all_other_bytes_stay() -> None:
    assert without(filled(THEIRS, ENTRIES)) == filled(THEIRS, {})


@pytest.mark.parametrize("kind", ENTRIES)
def test_one_entry_alone_is_cut_too(kind: str) -> None:
    assert without(filled(THEIRS, {kind: ENTRIES[kind]})) == filled(THEIRS, {})


NEW = {
    "clusters": {"name": "ha-lab", "cluster": {"server": "https://192.168.56.10:6443"}},
    "users": {"name": "ha-lab", "user": {"client-key-data": "eA=="}},
    "contexts": {"name": "ha-lab", "context": {"cluster": "ha-lab", "user": "ha-lab"}},
}


def added(text: str) -> str:
    return yaml_entries.added(text, NEW, "current-context")


@pytest.mark.parametrize(
    "text",
    [
        filled(THEIRS, {}),
        filled(THEIRS, {}).replace("current-context: work\n", ""),
        "kind: Config # mine",
        "# mine\nkind: Config\ncontexts: null # none\nclusters: []\nusers:\n",
        'kind: Config\ncurrent-context: ""   # none\ncontexts:\n- name: a',
        "kind: Config\ncurrent-context:\n# the end\n",
        "kind: Config\ncontexts:\n- name: a\n  context: {user: |\n      b\n  }\nusers: []\n".replace(
            "{user: |\n      b\n  }", "x"
        ),
    ],
)
def test_what_is_added_changes_nothing_else_and_goes_again(text: str) -> None:
    before, after = yaml.safe_load(text), yaml.safe_load(added(text))
    for kind, entry in NEW.items():
        assert after[kind] == [*(before.get(kind) or []), entry]
    assert after["current-context"] == (before.get("current-context") or "ha-lab")
    assert {key: value for key, value in after.items() if key not in (*NEW, "current-context")} == {
        key: value for key, value in before.items() if key not in (*NEW, "current-context")
    }
    for comment in (part for line in text.splitlines() if "#" in line for part in [line[line.index("#") :]]):
        assert comment in added(text)
        assert comment in without(added(text))
    assert added(added(text)) == added(text)


def test_lines_of_a_file_stay_when_an_entry_is_added_and_removed() -> None:
    text = filled(THEIRS, {})
    assert set(text.splitlines()) <= set(added(text).splitlines())
    assert without(added(text)) == text


def test_a_form_in_which_nothing_can_be_added_is_written_again() -> None:
    text = '{"kind": "Config", "contexts": [{"name": "a"}], "current-context": "a"}'
    after = yaml.safe_load(added(text))
    assert [each["name"] for each in after["contexts"]] == ["a", "ha-lab"]
    assert after["current-context"] == "a"


def test_a_file_without_the_entry_is_the_same() -> None:
    assert without(filled(THEIRS, {})) == filled(THEIRS, {})


def test_a_file_without_a_last_newline() -> None:
    text = "kind: Config\ncontexts:\n- name: a\n- name: ha-lab"
    assert without(text) == "kind: Config\ncontexts:\n- name: a\n"


def test_a_list_that_gets_empty_is_an_empty_list() -> None:
    text = "kind: Config\ncontexts:  # none but the lab's\n- name: ha-lab\n- name: ha-lab\nusers: null\n"
    assert without(text) == "kind: Config\ncontexts: []  # none but the lab's\nusers: null\n"


@pytest.mark.parametrize("value", ["ha-lab", "'ha-lab'"])
def test_the_current_context_is_none_where_it_was_the_lab_s(value: str) -> None:
    text = f"# a\ncurrent-context: {value} # b\nkind: Config\n"
    assert without(text) == '# a\ncurrent-context: "" # b\nkind: Config\n'


@pytest.mark.parametrize(
    "text",
    [
        "contexts: [{name: a}, {name: ha-lab}]\ncurrent-context: ha-lab\n",
        '{"contexts": [{"name": "a"}, {"name": "ha-lab"}], "current-context": "ha-lab"}',
        "contexts:\n- &x\n  name: a\n- name: ha-lab\n- *x\nkind: Config\n",
        "contexts:\n- &x {name: ha-lab}\n- *x\n- name: a\n",
    ],
)
def test_a_form_that_can_t_be_cut_keeps_its_meaning(text: str) -> None:
    before, after = yaml.safe_load(text), yaml.safe_load(without(text))
    assert [each["name"] for each in after["contexts"]] == [
        each["name"] for each in before["contexts"] if each["name"] != "ha-lab"
    ]
    assert after.get("current-context", "") == ""
    assert set(after) == set(before)


@pytest.mark.parametrize("text", ["", "- a list", "contexts: [word]", "contexts: [{}]", "{", "contexts: 3"])
def test_another_form_is_an_error(text: str) -> None:
    with pytest.raises((yaml.YAMLError, KeyError, TypeError, AttributeError)):
        without(text)
