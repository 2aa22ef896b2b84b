"""VirtualBox: machines are virtual, on Linux, macOS or Windows."""

from lab.providers.protocol import Provider
from lab.providers.virtualbox import machines

PROVIDER = Provider(title="VirtualBox", machines=machines, enforces_sizes=True)
