#!/bin/bash
# Makes the layer under kube-proxy, flannel, kube-router and the probe image: busybox, and the real tools that
# program the kernel, with the libraries they are linked to; perl for the probe alone, since Debian's busybox has no
# UDP. 20 MB instead of a whole Debian root. Needs root.
#
#   tools-layer.sh DEBIAN_TAR WORK OUT_TAR
set -euo pipefail

debian=$1 work=$2 out=$3
root=$work/root layer=$work/layer
readonly tools="usr/sbin/xtables-nft-multi usr/sbin/xtables-legacy-multi usr/sbin/nft usr/sbin/conntrack
	usr/sbin/ipset usr/sbin/ip usr/bin/ip usr/bin/perl"
readonly applets="sh cat cp mv rm ln ls mkdir echo printf true false sleep grep sed awk tr head tail wc cut sort
	env test expr date id ps ping nslookup wget httpd nc hostname uname mount umount stat touch find xargs"

mkdir -p "$root" "$layer"/{usr/bin,usr/sbin,usr/lib,etc,tmp,run,var,opt/bin}
chmod 1777 "$layer/tmp"
for name in bin sbin lib; do ln -s "usr/$name" "$layer/$name"; done
[[ $(uname -m) != x86_64 ]] || { mkdir -p "$layer/usr/lib64" && ln -s usr/lib64 "$layer/lib64"; }
ln -s ../run "$layer/var/run"
tar -xf "$debian" -C "$root" --numeric-owner ./usr ./lib ./lib64 ./bin ./sbin ./etc/protocols ./etc/services \
	./etc/ethertypes ./etc/alternatives 2>/dev/null || true

take() { # a file of the root, with the folder it lies in, links followed
	mkdir -p "$layer/$(dirname "$1")"
	cp -L "$root/$1" "$layer/$1"
}

# ldd prints "lib => /path (address)" or "/loader (address)"; both name a file of the root.
take_libraries() {
	chroot "$root" ldd "${@/#//}" | grep '^[[:space:]]' | grep -o '/[^ ]*' | sed 's|^/lib|/usr/lib|' | sort -u |
		while read -r library; do take "${library#/}"; done
}

for tool in $tools; do
	[[ -e $root/$tool && ! -L $root/$tool ]] || continue
	take "$tool"
	take_libraries "$tool"
done
[[ -e $layer/usr/bin/ip || ! -e $layer/usr/sbin/ip ]] || ln -s ../sbin/ip "$layer/usr/bin/ip"

# Every iptables command is a name of one program; kube-proxy and flannel pick by rules they find. kube-router takes
# the plain names, as machines do.
for link in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do
	ln -s xtables-nft-multi "$layer/usr/sbin/$link"
	ln -s xtables-nft-multi "$layer/usr/sbin/${link/tables/tables-nft}"
	ln -s xtables-legacy-multi "$layer/usr/sbin/${link/tables/tables-legacy}"
done
plugins=("$root"/usr/lib/*/xtables/*.so)
plugins=("${plugins[@]#"$root/"}")
for plugin in "${plugins[@]}"; do take "$plugin"; done
take_libraries "${plugins[@]}"
for file in protocols services ethertypes; do [[ ! -e $root/etc/$file ]] || take "etc/$file"; done

install -m 755 "$root/usr/bin/busybox" "$layer/usr/bin/busybox"
for applet in $applets; do
	[[ -e $layer/usr/bin/$applet ]] || ln -s busybox "$layer/usr/bin/$applet"
done
echo "root:x:0:0:root:/:/bin/sh" >"$layer/etc/passwd"

chroot "$layer" /usr/sbin/iptables --version
chroot "$layer" /usr/sbin/iptables-legacy --version
chroot "$layer" /usr/sbin/nft --version
chroot "$layer" /usr/sbin/conntrack --version
LC_ALL=C chroot "$layer" /usr/bin/perl -v # with -e it opens /dev/null, which is not there
chroot "$layer" /bin/sh -c 'ip -V && ipset version || true'

tar -cf "$out" -C "$layer" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner .
chmod 644 "$out"
rm -rf "$work"
