"""libvirt: virtual machines, with KVM or emulated, on this host or another."""

from lab.providers.libvirt import checkpoints, doctor, golden, host, machines
from lab.providers.protocol import Provider

PROVIDER = Provider(
    machines=machines,
    checkpoints=checkpoints,
    golden=golden,
    checks=doctor.CHECKS,
    tools=doctor.TOOLS,
    look=host.look,
    may_emulate=True,
)
