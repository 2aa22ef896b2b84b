"""docker: machines are containers, which share this host's kernel."""

from lab.providers.docker import machines
from lab.providers.protocol import Provider

PROVIDER = Provider(title="docker", machines=machines, enforces_sizes=False)
