#!/bin/bash
# In the golden root: users, ssh, which services start, what a machine must not share with its clones.
set -euo pipefail

useradd --create-home --shell /bin/bash vagrant
# No password, yet not locked: sshd refuses locked accounts even with a key.
usermod --password '*' vagrant
chmod 440 /etc/sudoers.d/vagrant

# A machine takes up its role when it is provisioned; until then nothing of it runs.
systemctl disable haproxy.service keepalived.service containerd.service
systemctl enable ssh.service ha-lab-images.service ha-lab-network.service ha-lab-dns.service kubelet.service

# The distribution's HAProxy configuration, kept to build on: the lab's part is appended to it.
cp /etc/haproxy/haproxy.cfg /usr/share/ha-lab/haproxy.packaged.cfg

# In a container these wait for hardware or seats that aren't there; on a virtual machine their
# absence costs nothing that a lab needs, so that both kinds of machine are the same.
systemctl mask getty.target console-getty.service systemd-logind.service \
	systemd-networkd-wait-online.service apt-daily.timer apt-daily-upgrade.timer \
	dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service systemd-tmpfiles-clean.timer

# New on every clone.
rm -f /etc/ssh/ssh_host_* /etc/hostname
: >/etc/machine-id
