"""libvirt: machines are virtual, of KVM or emulated, on this host or another."""

from lab.providers.libvirt import golden, machines
from lab.providers.protocol import Provider

PROVIDER = Provider(title="libvirt", machines=machines, golden=golden, may_emulate=True)
