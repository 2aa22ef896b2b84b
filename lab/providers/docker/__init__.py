"""docker: machines are containers, which share this host's kernel."""

from lab.providers.docker import golden, machines
from lab.providers.protocol import Provider

PROVIDER = Provider(title="docker", machines=machines, golden=golden, enforces_sizes=False, shares_kernel=True)
