import itertools
import re
from dataclasses import fields
from pathlib import Path

import pytest

from lab.errors import ConfigError
from lab.golden.supply import flannel, toolchain
from lab.golden.supply.recipe import components, runtime
from lab.golden.supply.releases import release, supported
from lab.model import Kubernetes

REQUIRED = {
    "kubernetes": ["k8s.io/kubernetes"],
    "etcd": [f"go.etcd.io/etcd/{program}/v3" for program in ("server", "etcdctl", "etcdutl")],
    "coredns": ["github.com/coredns/coredns"],
    "cni-plugins": ["github.com/containernetworking/plugins"],
    "cni-flannel": ["github.com/containernetworking/plugins"],
    "flannel": ["github.com/flannel-io/flannel"],
    "containerd": ["github.com/containerd/containerd/v2"],
    "containerd-shim": ["github.com/containerd/containerd/v2"],
    "runc": ["github.com/opencontainers/runc"],
    "kube-router": ["github.com/cloudnativelabs/kube-router/v2"],
    "metrics-server": ["sigs.k8s.io/metrics-server"],
    "local-path": ["github.com/rancher/local-path-provisioner"],
    "crictl": ["sigs.k8s.io/cri-tools"],
    "helm": ["helm.sh/helm/v4"],
}


def test_the_newest_comes_first_and_the_default_is_among_them() -> None:
    assert supported() == ("1.37.2", "1.36.3", "1.35.4")
    assert Kubernetes().version in supported()


def test_an_unsupported_version_is_a_config_error_that_names_the_supported_ones() -> None:
    with pytest.raises(ConfigError, match=r"1\.30\.0") as caught:
        release("1.30.0")
    assert "1.36.3" in caught.value.hint


@pytest.mark.parametrize("version", supported())
def test_every_version_is_a_bare_string(version: str) -> None:
    wanted = release(version)
    for field in fields(wanted):
        assert re.fullmatch(r"\d+\.\d+\.\d+(-0)?", getattr(wanted, field.name)), field.name


@pytest.mark.parametrize("version", supported())
def test_etcd_is_none_with_a_published_hole(version: str) -> None:
    # GHSA-6vch-q96h-7gc3: fixed in 3.6.14 and 3.7.1 (etcd's blog, 2026-07-23).
    found = tuple(int(number) for number in release(version).etcd.split("."))
    assert found >= ((3, 7, 1) if found[:2] == (3, 7) else (3, 6, 14))


def test_each_etcd_may_follow_that_of_the_version_before() -> None:
    # etcd's guide, "Upgrading etcd from v3.6 to v3.7": every member at 3.6.11 or later first.
    assert release("1.37.2").etcd_from == "3.6.11"
    versions = supported()
    for newer, older in itertools.pairwise(versions):

        def numbers(text: str) -> list[int]:
            return [int(number) for number in text.split(".")]

        assert numbers(release(older).etcd) >= numbers(release(newer).etcd_from)


@pytest.mark.parametrize("version", supported())
def test_the_tag_of_the_etcd_image_is_the_version_in_it(version: str) -> None:
    wanted = release(version)
    assert wanted.etcd_tag == f"{wanted.etcd}-0"


@pytest.mark.parametrize("version", supported())
def test_each_pin_requires_exactly_the_version_it_is_for(version: str) -> None:
    for component in (*components(release(version)), *runtime(release(version))):
        gomod = (component.pin / "go.mod").read_text(encoding="utf-8")
        for module in REQUIRED[component.name]:
            assert re.search(rf"^\t{module} v{component.version}\b", gomod, re.MULTILINE), component.name
        gosum = (component.pin / "go.sum").read_text(encoding="utf-8")
        assert f"{REQUIRED[component.name][0]} v{component.version} h1:" in gosum


@pytest.mark.parametrize("version", supported())
def test_each_pin_names_the_programs_that_are_built_from_it(version: str) -> None:
    built: dict[Path, list[str]] = {}
    for component in (*components(release(version)), *runtime(release(version))):
        built.setdefault(component.pin, []).extend(component.programs.values())
    for pin, programs in built.items():
        gomod = (pin / "go.mod").read_text(encoding="utf-8")
        block = re.search(r"^tool \((.*?)^\)", gomod, re.MULTILINE | re.DOTALL)
        tools = block[1].split() if block else re.findall(r"^tool (\S+)", gomod, re.MULTILINE)
        assert sorted(programs) == sorted(tools), pin


@pytest.mark.parametrize("version", supported())
def test_the_staging_modules_are_those_of_the_same_kubernetes(version: str) -> None:
    gomod = (release(version).pins()["kubernetes"] / "go.mod").read_text(encoding="utf-8")
    replaced = re.findall(r"^replace (\S+) => (\S+) v(\S+)", gomod, re.MULTILINE)
    assert len(replaced) > 30
    assert {(old == new, staging) for old, new, staging in replaced} == {(True, f"0.{version[2:]}")}


def test_the_toolchain_is_the_one_whose_hashes_are_pinned() -> None:
    assert {release(version).go for version in supported()} == {toolchain.version()}


@pytest.mark.parametrize("version", supported())
def test_the_manifest_beside_flannels_pin_is_of_that_version(version: str) -> None:
    wanted = release(version)
    assert flannel.agent_image(flannel.manifest(wanted)).endswith(f":v{wanted.flannel}")
    assert flannel.plugin_image(wanted).partition(":")[0].endswith("/flannel-cni-plugin")
