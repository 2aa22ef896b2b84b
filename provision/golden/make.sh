#!/bin/bash
# Makes the golden machine's root from a Debian root and a folder of what goes in. Needs root.
#
#   make.sh DEBIAN_TAR PAYLOAD WORK OUT_TAR
#
# PAYLOAD holds files/ (copied to their target paths), bin/ and cni/ (Kubernetes), runtime/ (containerd and runc),
# images/ (OCI archives) and golden/ (these scripts). WORK is an empty folder on a disk with 4 GiB free. Everything that runs
# inside the new root does so in namespaces of its own, which end with this script however it ends.
set -euo pipefail

debian=$1 payload=$2 work=$3 out=$4
root=$work/root

# Whatever mask the files were checked out under: these become /, /etc and /usr of every machine.
umask 022
chmod -R u=rwX,go=rX "$payload/files"

mkdir -p "$root"
tar -xf "$debian" -C "$root" --numeric-owner
cp -a --no-preserve=ownership "$payload/files/." "$root/"
install -m 755 "$payload"/bin/{kubeadm,kubelet,kubectl,etcdctl,etcdutl,crictl,helm} "$root/usr/bin/"
install -m 755 "$payload"/runtime/* "$root/usr/bin/"
install -d "$root/opt/cni/bin"
install -m 755 "$payload"/cni/* "$root/opt/cni/bin/"
install -D -m 644 "$payload/kube-flannel.yml" "$root/usr/share/ha-lab/kube-flannel.yml"
mkdir -p "$root/mnt/payload"

unshare --mount --pid --fork --kill-child --mount-proc bash -euo pipefail -c '
	root=$1 payload=$2
	mount --bind "$payload" "$root/mnt/payload"
	mount -t proc proc "$root/proc"
	mount --rbind /sys "$root/sys"
	mount --rbind /dev "$root/dev"
	mount -t tmpfs tmpfs "$root/run"
	mount -t tmpfs tmpfs "$root/tmp"
	chroot "$root" /mnt/payload/golden/system.sh
	chroot "$root" /mnt/payload/golden/images.sh
' bash "$root" "$payload"

rmdir "$root/mnt/payload"
cp "$payload/bom.json" "$root/usr/share/ha-lab/bom.json"
tar -cf "$out" -C "$root" --numeric-owner --sort=name .
chmod 644 "$out"
