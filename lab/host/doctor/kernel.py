"""Checks the kernel: capabilities, features, swap."""

from __future__ import annotations

from collections.abc import Iterator

from lab.host import Unknown
from lab.host.doctor.case import Case
from lab.host.doctor.finding import Action, Finding, fit, note, unfit

CAPABILITIES = frozenset(
    (
        *("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_ADMIN", "NET_BIND_SERVICE"),
        *("NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_ADMIN", "SYS_CHROOT", "SYS_PTRACE"),
    )
)
"""Capabilities that systemd, containerd, kube-proxy and flannel need in a container machine."""

NOT_LOADED_ON_USE = ("br_netfilter",)
"""Modules that the kernel does not load when they are first used; machines can't load them, either."""
OF_POLICIES = frozenset({"ip_set", "xt_set", "xt_physdev"})
"""Modules that only kube-router's rules need."""

MODULES_FILE = "/etc/modules-load.d/ha-lab.conf"


def capabilities(case: Case) -> Iterator[Finding]:
    """Can docker give the machines the capabilities that they need?"""
    title, found = "Capabilities", case.host.capabilities
    if isinstance(found, Unknown):
        yield note(
            "capabilities", title, found.reason, "Machines can't get capabilities that docker does not have."
        )
        return
    missing = sorted(CAPABILITIES - found)
    if missing:
        why = "Machines need these capabilities, and can't get any that docker does not have."
        repair = "use a host or a virtual machine that is not a restricted container itself"
        yield unfit("capabilities", title, f"docker lacks {', '.join(missing)}", why, repair)
    elif "SYS_RESOURCE" not in found:
        why = "containerd may not lower an OOM score then; restrict_oom_score_adj is set in machines."
        yield note("capabilities", title, "all but SYS_RESOURCE", why)
    else:
        yield fit("capabilities", title, "all that machines need")


def features(case: Case) -> Iterator[Finding]:
    """Does the kernel have the features that pods and their network need?"""
    title = "Kernel"
    without = OF_POLICIES if case.lab.network.policy == "none" else frozenset()
    found = {name: presence for name, presence in case.host.features.items() if name not in without}
    sure = [name for name, presence in found.items() if not isinstance(presence, Unknown)]
    for name, presence in sorted(found.items()):
        why = f"{'NetworkPolicies' if name in OF_POLICIES else 'Pods and their network'} need {name}."
        if isinstance(presence, Unknown):
            yield note(f"kernel-{name}", title, f"{name}: unknown: {presence.reason}", why)
        elif presence == "loadable" and name in NOT_LOADED_ON_USE:
            yield _load(case, name, f"{why} flannel does not start until it is loaded.")
        elif presence == "missing":
            repair = f"boot a kernel that has {name}"
            repair += ", or set network.policy to none in lab.yaml" if name in OF_POLICIES else ""
            yield unfit(f"kernel-{name}", title, f"{name} is not in this kernel", why, repair)
    if len(sure) == len(found) and "missing" not in found.values():
        yield fit("kernel", title, f"{case.host.kernel} has {', '.join(sorted(sure))}")


def _load(case: Case, name: str, why: str) -> Finding:
    """Load a module now, and at every boot from a file of the kit."""
    what = f"{name} is a module that is not loaded"
    actions = (
        Action(("modprobe", name)),
        Action(("install", "-D", "-m", "644", "/dev/stdin", MODULES_FILE), f"{name}\n"),
    )
    repair = "\n".join(action.pasted(is_root=case.host.uid == 0) for action in actions)
    return Finding(f"kernel-{name}", "Kernel", "repairable", what, why, repair, actions)


def swap(case: Case) -> Iterator[Finding]:
    """Is there swap? The kubelets are configured to tolerate it."""
    memory = case.host.memory
    if isinstance(memory, Unknown):
        return  # the memory check reports it
    if memory.swap:
        why = "Kubelets run with failSwapOn: false here. A cluster that swaps is slow, above all etcd."
        yield note("swap", "Swap", f"{memory.swap} MiB", why)
    else:
        yield fit("swap", "Swap", "none")
