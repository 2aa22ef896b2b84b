#!/bin/bash
# In the golden root, for a machine of its own: what starts it, and what a container gets from its host.
#
#   system.sh UUID       of the root's file system
set -euo pipefail

uuid=$1
readonly grub=/usr/lib/grub/i386-pc

# Not checked at boot: the kernel replays the journal, and a machine whose disk is broken is made anew.
echo "UUID=$uuid / ext4 errors=remount-ro 0 0" >/etc/fstab
systemctl enable systemd-networkd.service systemd-timesyncd.service ha-lab-authorize.service ha-lab-resolver.path
# Docker starts that one itself, and nobody else should: it makes a container fit to be a machine.
rm -f /usr/lib/ha-lab/container-entrypoint

# For menus that nobody sees here.
systemctl mask --quiet grub-common.service

# Made when the kernel was installed, for any hardware; files/ has the list of what counts.
update-initramfs -u -k all

# net.ifnames=0: eth0 is every provider's first network, eth1 the lab's.
mkdir -p /boot/grub
cat >/boot/grub/grub.cfg <<CFG
linux /vmlinuz root=UUID=$uuid rw net.ifnames=0 quiet systemd.show_status=1 console=tty0 console=ttyS0,115200
initrd /initrd.img
echo "ha-lab: GRUB starts the kernel"
boot
CFG
cat >/boot/grub/core.cfg <<CFG
serial --unit=0 --speed=115200
terminal_output serial console
search.fs_uuid $uuid root
set prefix=(\$root)/boot/grub
configfile \$prefix/grub.cfg
CFG
grub-mkimage -O i386-pc -o /boot/grub/core.img -p /boot/grub -c /boot/grub/core.cfg \
	biosdisk part_msdos ext2 search_fs_uuid serial terminal echo linux configfile normal boot
cp "$grub/boot.img" /boot/grub/boot.img

# New on every clone: what the kernel's and systemd's installation may have left.
rm -f /etc/ssh/ssh_host_* /etc/hostname /var/lib/systemd/random-seed /var/lib/dbus/machine-id
: >/etc/machine-id

# A first boot need not make again what was made while packages were installed (systemd-update-done.service(8)).
touch -r /usr /etc/.updated /var/.updated
