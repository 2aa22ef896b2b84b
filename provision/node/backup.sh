#!/bin/bash
# Prints a backup of the cluster as a tar, and nothing else on standard output: etcd's snapshot from this machine's member,
# what `etcdutl snapshot status` found, the keys with their revisions, and the CAs and keys that all control planes share.
# Where etcd has machines of its own, those of a control plane are a tar of their own. lab/workspace/backup.py describes the
# file.
#
#   backup.sh           the tar
#   backup.sh --pki     of a control plane without etcd: the CAs and keys, a tar
#   backup.sh --keys    only the keys of etcd, as JSON
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/kubernetes.sh
source "$HERE/kubernetes.sh"

# On a disk, since a snapshot may be large, but not in etcd's folder, which has to be empty when a machine joins.
readonly FOLDER=/var/lib/ha-lab-backup OWN=https://127.0.0.1:2379

# From this machine's own member (a serializable read), which has the snapshot's revision, and without a majority.
keys() { etcd_at "$OWN" get /registry/ --prefix --keys-only --consistency s --write-out json "$@"; }

# A quarter more than the database has: it may grow while it is sent.
require_room() {
	local size needed free
	size=$(du --bytes --summarize /var/lib/etcd/member/snap/db | cut -f1)
	needed=$((size + size / 4))
	free=$(df --output=avail --block-size=1 "$FOLDER" | tail -n 1)
	((free > needed)) ||
		die "the snapshot needs $((needed / 1048576 + 1)) MiB of disk space on $NODE_NAME, and $((free / 1048576)) MiB are" \
			"free; free some there"
}

main() {
	local revision
	if [[ ${1:-} == --keys ]]; then
		keys
		return
	fi
	if [[ ${1:-} == --pki ]]; then
		tar -cf - -C "${PKI%/*}" --owner=0 --group=0 --numeric-owner "${SHARED_PKI[@]/#/pki/}"
		return
	fi
	exec 3>&1 1>&2
	exclusively
	umask 077
	trap 'rm -rf "$FOLDER"' EXIT
	command -v etcdutl >/dev/null || die "$NODE_NAME has no etcdutl, which verifies the snapshot: it was created from" \
		"a golden machine of an earlier version of the kit. \`./inv replace $NODE_NAME\` creates it from a new one"
	rm -rf "$FOLDER" # of a run that was killed
	mkdir -p "$FOLDER/pki/etcd"
	require_room
	# `snapshot save` has no deadline of its own.
	with_notices "etcd to send its snapshot" "${ETCDCTL[@]}" --endpoints "$OWN" \
		--command-timeout "$((300 * LAB_PATIENCE))s" snapshot save "$FOLDER/snapshot.db"
	etcdutl snapshot status "$FOLDER/snapshot.db" --write-out json >"$FOLDER/status.json"
	revision=$(sed -n 's/.*"revision":\([0-9]*\).*/\1/p' "$FOLDER/status.json")
	keys --rev "$revision" >"$FOLDER/keys.json"
	[[ $NODE_ROLE == etcd ]] || for file in "${SHARED_PKI[@]}"; do cp "$PKI/$file" "$FOLDER/pki/$file"; done
	tar -cf - -C "$FOLDER" --owner=0 --group=0 --numeric-owner status.json keys.json pki snapshot.db >&3
}

main "$@"
