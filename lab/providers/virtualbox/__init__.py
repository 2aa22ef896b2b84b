"""VirtualBox: machines are virtual, on Linux, macOS or Windows."""

from lab.providers.protocol import Provider
from lab.providers.virtualbox import golden, machines

PROVIDER = Provider(title="VirtualBox", machines=machines, golden=golden, takes_disc=True, runs_on_macos=True)
