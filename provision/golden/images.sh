#!/bin/bash
# In the golden root: containerd's images, imported and unpacked once, so that no node ever does it.
set -euo pipefail

readonly socket=/run/containerd/containerd.sock store=/usr/lib/ha-lab/containerd
readonly blobs=$store/io.containerd.content.v1.content/blobs

pause=$(grep '/pause:' /mnt/payload/images/names.txt)
sed -i "s|@PAUSE_IMAGE@|$pause|" /etc/containerd/config.toml

containerd --root "$store" --state /run/containerd-bake >/tmp/containerd.log 2>&1 &
daemon=$!
for _ in $(seq 150); do
	ctr --address "$socket" version >/dev/null 2>&1 && break
	kill -0 "$daemon" || {
		cat /tmp/containerd.log >&2
		exit 1
	}
	sleep 0.2
done

for archive in /mnt/payload/images/*.tar; do
	echo "importing ${archive##*/}"
	# By the client (--local), which unpacks into that snapshotter and has the image's name as it is in the archive.
	ctr --address "$socket" --namespace k8s.io images import --local --snapshotter overlayfs "$archive"
done
while read -r name; do
	ctr --address "$socket" --namespace k8s.io images ls -q "name==$name" | grep -qxF "$name" || {
		echo "the image $name is not in containerd after the import" >&2
		exit 1
	}
	# The kubelet must never take these for garbage.
	ctr --address "$socket" --namespace k8s.io images label "$name" io.cri-containerd.pinned=pinned >/dev/null
done </mnt/payload/images/names.txt

# What lies where, for machines that are upgraded to these images (provision/node/payload.sh): `image NAME DIGEST TYPE`,
# then a line for each of its layers from the bottom, `layer CHAIN-ID FOLDER`. An image's target leads to its configuration
# and that to its topmost snapshot by the labels that containerd keeps them by (docs/garbage-collection.md). containerd
# names every image by its configuration's digest (sha256:…), too; it does so on those machines as well.
of_images() { ctr --address "$socket" --namespace k8s.io "$@"; }
topmost_snapshot() {
	of_images content ls | awk -v target="$1" '
		{ labels[$1] = $NF }
		END {
			queue[count = 1] = target
			for (i = 1; i <= count; i++) {
				split(labels[queue[i]], each, ",")
				for (j in each) {
					split(each[j], pair, "=")
					if (pair[1] == "containerd.io/gc.ref.snapshot.overlayfs") { print pair[2]; exit }
					if (pair[1] ~ /^containerd.io\/gc.ref.content.(m.[0-9]+|config)$/) queue[++count] = pair[2]
				}
			}
		}'
}
layers() {
	local chain=$1 chains=() folders
	while [[ -n $chain ]]; do
		chains=("$chain" "${chains[@]}")
		chain=$(of_images snapshots --snapshotter overlayfs info "$chain" | sed -n 's/^ *"Parent": "\(.*\)",\?$/\1/p')
	done
	folders=$(of_images snapshots --snapshotter overlayfs view --target /mnt index "$1" | grep -o "$store/[^:, ]*" | tac)
	# containerd may have collected it by now, since nothing refers to it.
	of_images snapshots --snapshotter overlayfs rm index 2>/dev/null || true
	paste -d ' ' <(printf 'layer %s\n' "${chains[@]}") - <<<"$folders"
}
while read -r name type digest; do
	echo "image $name $digest $type"
	top=$(topmost_snapshot "$digest")
	layers "$top"
done < <(of_images images ls | awk 'NR > 1 && $1 !~ /^sha256:/ { print $1, $2, $3 }') >/usr/share/ha-lab/images.txt

# Unpacked is what nodes use. The packed layers are the same bytes a second time, and containerd may be
# without them (its own option for that is discard_unpacked_layers).
ctr --address "$socket" --namespace k8s.io content ls --quiet | while read -r digest; do
	# What is listed may be gone: what was removed sets containerd's own collection going, beside this loop.
	size=$(stat -c %s "$blobs/${digest/://}" 2>/dev/null) || continue
	((size < 1000000)) || ctr --address "$socket" --namespace k8s.io content rm "$digest" >/dev/null
done
kill "$daemon"
wait "$daemon" || true
# The collection of what was removed is lazy; do what it would do.
find "$blobs/sha256" -size +1000000c -delete
# Only what nodes link to (link-images) stays.
find "$store" -mindepth 1 -maxdepth 1 \
	! -name io.containerd.snapshotter.v1.overlayfs ! -name io.containerd.content.v1.content \
	! -name io.containerd.metadata.v1.bolt -exec rm -rf {} +
