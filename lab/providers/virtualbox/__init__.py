"""VirtualBox: virtual machines on Linux, macOS or Windows."""

from lab.providers.protocol import Provider
from lab.providers.virtualbox import checkpoints, doctor, golden, host, machines

PROVIDER = Provider(
    machines=machines,
    checkpoints=checkpoints,
    golden=golden,
    checks=doctor.CHECKS,
    tools=doctor.TOOLS,
    look=host.look,
    takes_disc=True,
    runs_on_macos=True,
)
