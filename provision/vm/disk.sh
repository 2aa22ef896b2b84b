#!/bin/bash
# Makes the golden disk from a golden root: a kernel that finds its root on any provider's disk, and GRUB to
# start it on BIOS. Needs root, and no loop device: build machines have none.
#
#   disk.sh ROOT_TAR VM WORK OUT_RAW OUT_KERNEL SIZE
#
# VM holds files/ (copied to their target paths) and system.sh (run in the root). WORK is an empty folder on a
# disk with 3 GiB free. OUT_RAW becomes a sparse file of SIZE (as truncate has it); OUT_KERNEL a copy of the kernel.
set -euo pipefail

root_tar=$1 vm=$2 work=$3 out=$4 kernel=$5 size=$6
root=$work/root
uuid=$(cat /proc/sys/kernel/random/uuid)
readonly start=2048 sector=512 # the partition begins at 1 MiB, as every partitioning tool has it

umask 022
mkdir -p "$root"
tar -xf "$root_tar" -C "$root" --numeric-owner
cp -r "$vm/files/." "$work/files"
chmod -R u=rwX,go=rX "$work/files"
cp -a --no-preserve=ownership "$work/files/." "$root/"
install -m 755 "$vm/system.sh" "$root/system.sh"

unshare --mount --pid --fork --kill-child --mount-proc bash -euo pipefail -c '
	root=$1 uuid=$2
	mount -t proc proc "$root/proc"
	mount --rbind /sys "$root/sys"
	mount --rbind /dev "$root/dev"
	mount -t tmpfs tmpfs "$root/run"
	mount -t tmpfs tmpfs "$root/tmp"
	chroot "$root" /system.sh "$uuid"
' bash "$root" "$uuid"
rm "$root/system.sh"

cp -L "$root/vmlinuz" "$kernel"
mv "$root/boot/grub/boot.img" "$root/boot/grub/core.img" "$work/"

# Inode tables are written now: written later, by the kernel, they would grow every clone. Fewer inodes than
# usual, since images bring theirs with them and nothing here makes many small files.
rm -f "$out"
truncate -s "$size" "$out"
blocks=$((($(stat -c %s "$out") - start * sector) / 4096))
mke2fs -q -t ext4 -b 4096 -i 65536 -m 1 -U "$uuid" -L ha-lab -d "$root" \
	-E "offset=$((start * sector)),lazy_itable_init=0" "$out" "$blocks"

# GRUB, by hand: boot.img is the first sector, without the bytes of the partition table; core.img follows and is
# found there by boot.img as it comes.
(($(stat -c %s "$work/core.img") <= (start - 1) * sector)) || {
	echo "GRUB's core.img does not fit before the partition" >&2
	exit 1
}
dd if="$work/boot.img" of="$out" bs=1 count=446 conv=notrunc status=none
dd if="$work/core.img" of="$out" bs=$sector seek=1 conv=notrunc status=none

# The partition table: one active entry, type 83 (Linux), with cylinders, heads and sectors left to LBA.
little_endian() { printf '\\x%02x\\x%02x\\x%02x\\x%02x' $(($1 & 255)) $(($1 >> 8 & 255)) $(($1 >> 16 & 255)) $(($1 >> 24 & 255)); }
entry="\\x80\\xfe\\xff\\xff\\x83\\xfe\\xff\\xff$(little_endian $start)$(little_endian $((blocks * 4096 / sector)))"
# shellcheck disable=SC2059  # the format is the bytes
{
	printf "$entry"
	head -c 48 /dev/zero
	printf '\x55\xaa'
} | dd of="$out" bs=1 seek=446 conv=notrunc status=none
chmod 644 "$out" "$kernel"
