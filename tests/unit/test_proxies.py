from __future__ import annotations

import os

import pytest

from lab.system import process, proxies

PROXY = "http://ada:s3cret@proxy.example:3128"


def test_without_a_proxy_nothing_is_said() -> None:
    assert proxies.environment({"no_proxy": "example"}) == {}
    assert proxies.for_nodes(("192.168.56.0/24",), {}) == {}


@pytest.mark.parametrize("name", ["https_proxy", "HTTPS_PROXY"])
def test_either_spelling_leads_to_both(name: str) -> None:
    said = proxies.environment({name: PROXY, "NO_PROXY": "example, .corp"})
    exempt = "example,.corp,localhost,127.0.0.1,::1"
    assert said == {
        "https_proxy": PROXY,
        "HTTPS_PROXY": PROXY,
        "no_proxy": exempt,
        "NO_PROXY": exempt,
    }


def test_a_machine_needs_no_proxy_for_the_lab() -> None:
    said = proxies.for_nodes(("192.168.56.0/24", ".svc"), {"http_proxy": PROXY})
    assert said["http_proxy"] == said["HTTP_PROXY"] == PROXY
    assert said["NO_PROXY"] == "localhost,127.0.0.1,::1,192.168.56.0/24,.svc"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "[::1]"])
@pytest.mark.parametrize("scheme", ["http://", "http://ada:s3cret@", ""])
def test_a_proxy_on_this_hosts_loopback_is_none_to_a_machine(host: str, scheme: str) -> None:
    assert proxies.for_nodes((), {"http_proxy": f"{scheme}{host}:3128"}) == {}


def test_every_command_knows_the_proxies_and_no_word_holds_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*proxies.NAMES, *(name.upper() for name in proxies.NAMES)):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", PROXY)
    assert process.run(["printenv", "http_proxy"]).stdout.strip() == PROXY
    assert process.run(["printenv", "http_proxy"], env={"http_proxy": "other"}).stdout.strip() == "other"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    words = process.as_root("apt-get", "update", online=True)
    assert words[0] == "sudo"
    assert words[-3:] == ["--", "apt-get", "update"]
    assert {"http_proxy", "HTTP_PROXY", "no_proxy"} < set(words[1].partition("=")[2].split(","))
    assert PROXY not in " ".join(words)
    assert process.as_root("rm", "x") == ["sudo", "--", "rm", "x"]


def test_without_a_proxy_sudo_is_asked_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*proxies.NAMES, *(name.upper() for name in proxies.NAMES)):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert process.as_root("apt-get", "update", online=True) == ["sudo", "--", "apt-get", "update"]
