"""docker: machines are containers that share this host's kernel."""

from lab.providers.docker import checkpoints, doctor, golden, machines
from lab.providers.protocol import Provider

PROVIDER = Provider(
    machines=machines,
    checkpoints=checkpoints,
    golden=golden,
    checks=doctor.CHECKS,
    tools=doctor.TOOLS,
    enforces_sizes=False,
    shares_kernel=True,
    bridges_with_docker=True,
)
