"""The add-ons that lab.yaml can ask for: ADDONS has one row each, and every other module asks it.

A new add-on is a row here; its manifest in provision/templates/addons/NAME.yaml.j2; its image's recipe in
`lab.golden.supply.images`; a check of its own in `lab.health.checks.addons`, with a sabotage. `up` applies the
manifest, and removes an add-on by deleting what is in it (provision/node/addons.sh).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Addon:
    """What an add-on is, and what is gone without it.

    image: the full name of its image, which every golden machine has; `release` stands for a
        `lab.golden.supply.releases.Release`.
    pods: how the names of its pods begin, after `NAMESPACE/`.
    check: the name of the check that shows that it works.
    gone: what users notice when it is removed, after "users notice: ".
    """

    image: str
    pods: str
    check: str
    gone: str


ADDONS: Mapping[str, Addon] = {
    "metrics-server": Addon(
        image="registry.k8s.io/metrics-server/metrics-server:v{release.metrics_server}",
        pods="kube-system/metrics-server-",
        check="metrics-server",
        gone="`kubectl top` has no figures, and HorizontalPodAutoscalers stay at their number of pods",
    ),
    "local-path": Addon(
        image="docker.io/rancher/local-path-provisioner:v{release.local_path}",
        pods="local-path-storage/local-path-provisioner-",
        check="local-path",
        gone="claims of the StorageClass local-path get no volume any more; `up` refuses while there are "
        "volumes of it",
    ),
}
"""Every add-on's row, in the order in which they are applied."""
