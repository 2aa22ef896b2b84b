"""Checks memory, disks, CPUs, control groups and inotify against the machines' needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lab.host import Folder, Unknown
from lab.host.doctor.case import Case
from lab.host.doctor.finding import Action, Finding, fit, note, unfit
from lab.model.roles import ROLES
from lab.system import quoting

# MiB, besides those of the machines.
MEMORY_RESERVE_MIB = 512

CPUS = 2

# MiB free, as measured: for Go's caches, the built programs, and the machines' root file system.
DISK_BAKE_MIB = 9 * 1024

Need = tuple[str, Folder | Unknown, int]
"""What a folder is for, the folder, and the MiB that it needs."""

CONTROLLERS = frozenset({"cpu", "memory", "pids"})

INOTIFY_SECOND_LAB = sum(
    spec.inotify_instances for spec in ROLES.values() if spec.balances or spec.runs_kubelet
)
"""The tests run the smallest lab (1+1+1) beside this one."""
INOTIFY_UNCOUNTED = 32
"""The number assumed to be in use if they can't be counted; a host's services use about that many."""
INOTIFY_INSTANCES = 1024
INOTIFY_WATCHES = 65536
SYSCTL_FILE = "/etc/sysctl.d/90-ha-lab.conf"


def memory(case: Case, used: int | None = None) -> Iterator[Finding]:
    """Is there memory for the machines that don't run yet?

    `used`: MiB that these use. None: those in lab.yaml, which virtual machines use sooner or later.
    """
    found = case.host.memory
    if isinstance(found, Unknown):
        yield note(
            "memory",
            "Memory",
            f"could not be asked: {found.reason}",
            "There may not be enough memory for the lab.",
        )
        return
    declared = sum(node.memory_mib for node in case.waiting)
    needed = (declared if used is None else used) + MEMORY_RESERVE_MIB
    what = f"{found.available} MiB available, {len(case.waiting)} machines to start need {needed} MiB"
    if case.waiting and found.available < needed:
        why = "The kernel would kill processes of the cluster, and etcd loses its leader while it swaps."
        yield unfit("memory", "Memory", what, why, "end other programs, or configure fewer nodes in lab.yaml")
    elif case.waiting and found.available < declared:
        why = f"lab.yaml promises them {declared} MiB in total; workloads that use that would not fit."
        yield note("memory", "Memory", what, why)
    else:
        yield fit("memory", "Memory", what if case.waiting else "all machines run already")


def cpus(case: Case) -> Iterator[Finding]:
    """Are there enough CPUs? Container machines see all CPUs of the host."""
    what = f"{case.host.cpus} found, {CPUS} needed"
    if case.host.cpus < CPUS:
        why = f"kubeadm refuses to create a control plane with fewer than {CPUS} CPUs (its check NumCPU)."
        yield unfit("cpus", "CPUs", what, why, "give this host, or the virtual machine it is, more CPUs")
    else:
        yield fit("cpus", "CPUs", what)


def disk(case: Case, machines: Sequence[Need] = (), look: str = "") -> Iterator[Finding]:
    """Is there enough space for `machines` and for builds? They may be on one disk.

    `look` is a command that shows what could be deleted.
    """
    needs = list(machines)
    if case.wants("bake") and not case.baked:
        needs.append(("the cache", case.host.cache, DISK_BAKE_MIB))
    known: list[tuple[str, Folder, int]] = []
    for whose, folder, needed in needs:
        if isinstance(folder, Unknown):
            yield note("disk", "Disk", f"{whose}: {folder.reason}", "It may fill up during the run.")
        else:
            known.append((whose, folder, needed))
    for device in dict.fromkeys(folder.device for _, folder, _ in known):
        yield _one_disk([each for each in known if each[1].device == device], look)


def _one_disk(uses: list[tuple[str, Folder, int]], look: str) -> Finding:
    free = min(folder.free for _, folder, _ in uses)
    needed = sum(need for _, _, need in uses)
    places = " and ".join(f"{whose} ({folder.path})" for whose, folder, _ in uses)
    what = f"{free} MiB free for {places}, {needed} MiB needed"
    if free >= needed:
        return fit("disk", "Disk", what)
    repair = "./inv bake --prune  # golden machines that no lab uses"
    if look:
        repair = f"{look}   # what could be deleted\n{repair}"
    return unfit("disk", "Disk", what, "A full disk stops etcd and makes builds fail.", repair)


def folders(case: Case) -> Iterator[Finding]:
    """Are the folders writable that the kit writes to?"""
    host, remedy = case.host, 'sudo chown -R "$USER" {}   # if it is yours'
    rows = [("tmp", "Temporary files", host.tmp, "Archives are unpacked there.", "export TMPDIR=~/tmp")]
    rows.append(("workspace", "Lab folder", host.workspace, "All of the lab's files are there.", remedy))
    if case.wants("bake"):
        other = 'sudo install -d -o "$USER" {}   # or set XDG_CACHE_HOME to a folder of yours'
        rows.append(("cache", "Cache", host.cache, "Builds are kept there.", other))
    for check, title, folder, why, repair in rows:
        if isinstance(folder, Unknown):
            yield note(check, title, folder.reason, why)
        elif folder.writable:
            yield fit(check, title, f"{folder.path}")
        else:
            command = repair.format(quoting.word(folder.path))
            yield unfit(check, title, f"{folder.path} can't be written", why, command)


def cgroups(case: Case) -> Iterator[Finding]:
    """Which version are the control groups, and are all those enabled that the kubelet needs?"""
    found = case.host.cgroups
    if isinstance(found, Unknown):
        yield note("cgroups", "Control groups", found.reason, "The kubelet needs them.")
        return
    missing = sorted(CONTROLLERS - found.controllers)
    what = f"version {found.version}"
    if missing:
        why = "The kubelet does not start without them."
        repair = "boot with `cgroup_enable=memory`, or use a kernel that has them"
        yield unfit("cgroups", "Control groups", f"{what} without {', '.join(missing)}", why, repair)
    elif found.version == 1:
        why = "Kubernetes is phasing out version 1; kubelets run with failCgroupV1: false here."
        yield note("cgroups", "Control groups", what, why)
    else:
        yield fit("cgroups", "Control groups", what)


def inotify(case: Case) -> Iterator[Finding]:
    """Are there enough inotify instances for the machines that don't run yet?"""
    found = case.host.inotify
    title = "inotify"
    why = (
        "Each limit is for all of root's processes, in containers too. Without free instances systemd, "
        "containerd or the kubelet fail in some machines, and joins fail with unrelated messages."
    )
    if isinstance(found, Unknown):
        yield note("inotify", title, f"could not be asked: {found.reason}", why)
        return
    needed = sum(ROLES[node.role].inotify_instances for node in case.waiting)
    needed += INOTIFY_SECOND_LAB if "test" in case.purposes else 0
    counted = not isinstance(found.used, Unknown)
    own = sum(ROLES[node.role].inotify_instances for node in case.lab.nodes if node not in case.waiting)
    used = found.used if not isinstance(found.used, Unknown) else INOTIFY_UNCOUNTED + own
    free = max(0, found.instances - used)
    guess = "" if counted else " (estimated: only root can count)"
    what = (
        f"{free} of {found.instances} instances free{guess}, "
        f"{needed} needed; {found.watches} watches, {INOTIFY_WATCHES} needed"
    )
    if free >= needed and found.watches >= INOTIFY_WATCHES:
        yield fit("inotify", title, what)
        return
    # Never lower than before, and enough for another lab.
    instances = max(INOTIFY_INSTANCES, found.instances, 2 * (used + needed))
    actions = _keep_inotify(instances, max(INOTIFY_WATCHES, found.watches))
    repair = "\n".join(action.pasted(is_root=case.host.uid == 0) for action in actions)
    yield Finding("inotify", title, "repairable", what, why, repair, actions)


def _keep_inotify(instances: int, watches: int) -> tuple[Action, ...]:
    """Raise the limits now, and at every boot from a file of the kit."""
    settings = f"fs.inotify.max_user_instances={instances}", f"fs.inotify.max_user_watches={watches}"
    return (
        Action(("sysctl", "-w", *settings)),
        Action(
            ("install", "-D", "-m", "644", "/dev/stdin", SYSCTL_FILE),
            "".join(f"{line}\n" for line in ("# Written by the HA lab kit's doctor.", *settings)),
        ),
    )
