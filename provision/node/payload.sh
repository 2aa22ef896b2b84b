#!/bin/bash
# Takes what another Kubernetes version needs from standard input, a tar of a golden machine (lab/golden/payload.py).
# Programs are kept beside those that run, and containerd gets the images beside those that it has. Nothing that runs is
# touched.
#
#   payload.sh VERSION IMAGE…       takes these images
#   payload.sh --present VERSION    what this machine has of that version, a line each: `program` and `image NAME`
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/kubernetes.sh
source "$HERE/kubernetes.sh"

# On cgroup v1 ctr warns of its end in every call.
export CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS=true

readonly UNFINISHED=$PAYLOADS/unfinished KEY=ha-lab-upgrade

images() { ctr --namespace k8s.io images "$@"; }
snapshots() { ctr --namespace k8s.io snapshots --snapshotter overlayfs "$@"; }

present() {
	# The kubelet is the last that is installed.
	[[ ! -x $(payload_of "$1")/bin/kubeadm && $(kubelet --version) != "Kubernetes v$1" ]] || echo program
	images list --quiet | sed 's/^/image /'
}

# The folder that a snapshot's own files are in: on top of others, it is the upper one.
folder_of() {
	local mounts
	mounts=$(snapshots mounts /mnt "$1")
	mounts=${mounts#*upperdir=}
	grep -o '/[^:, ]*/snapshots/[0-9]*/fs' <<<"$mounts" | head -n 1
}

# take_layer CHAIN-ID FOLDER PARENT: as containerd's own snapshot, which is never packed. The folder is on the same file
# system, so that this moves it.
take_layer() {
	local folder
	! snapshots info "$1" >/dev/null 2>&1 || return 0
	snapshots rm "$KEY" 2>/dev/null || true # of a run that was killed
	# Without a parent there is no such word.
	# shellcheck disable=SC2086
	snapshots prepare "$KEY" $3 >/dev/null
	folder=$(folder_of "$KEY")
	rmdir "$folder"
	mv "$UNFINISHED$2" "$folder"
	snapshots commit "$1" "$KEY"
}

# The images as an archive without their layers (OCI image layout). containerd finds each layer's snapshot there already.
archive() {
	local entries=("$@")
	echo '{"imageLayoutVersion":"1.0.0"}' >"$UNFINISHED/oci-layout"
	(IFS=, && echo "{\"schemaVersion\":2,\"manifests\":[${entries[*]}]}") >"$UNFINISHED/index.json"
	tar -cf - -C "$UNFINISHED" oci-layout index.json \
		--transform 's#^\./#blobs/#' -C "$UNFINISHED$CONTENT/blobs" ./sha256
}
readonly CONTENT=/usr/lib/ha-lab/containerd/io.containerd.content.v1.content

# Again if it fails: the kubelet's plugin of containerd names each new image by its digest, at the same time as this.
import_images() { archive "$@" | ctr --namespace k8s.io images import --local --snapshotter overlayfs - 2>&1; }

# take_images NAME…: those of the golden machine's images.
take_images() {
	local word first second third parent="" entries=() names=() size takes=no wanted=" $* "
	while read -r word first second third; do
		if [[ $word == image ]]; then
			parent="" takes=no
			[[ $wanted == *" $first "* ]] || continue
			takes=yes
			names+=("$first")
			size=$(stat --format %s "$UNFINISHED$CONTENT/blobs/${second/://}")
			entries+=("{\"mediaType\":\"$third\",\"digest\":\"$second\",\"size\":$size,\"annotations\":{\"io.containerd.image.name\":\"$first\"}}")
		elif [[ $takes == yes ]]; then
			take_layer "$first" "$second" "$parent"
			parent=$first
		fi
	done <"$UNFINISHED/usr/share/ha-lab/images.txt"
	((${#names[@]} == $#)) || die "the payload has ${names[*]:-no image}, and not all of: $*"
	((${#names[@]})) || return 0
	wait_for 60 "containerd to have these images" import_images "${entries[@]}"
	for word in "${names[@]}"; do
		# The kubelet must never take these for garbage.
		images label "$word" io.cri-containerd.pinned=pinned >/dev/null
	done
}

main() {
	local version=${1:-} folder
	[[ $version != --present ]] || {
		present "$2"
		return
	}
	exclusively
	# What a full disk has let through would keep it full.
	trap 'rm -rf "$UNFINISHED"' EXIT
	rm -rf "$UNFINISHED"
	mkdir -p "$UNFINISHED"
	with_notices "the payload of Kubernetes $version" tar -xf - -C "$UNFINISHED" --numeric-owner --preserve-permissions
	take_images "${@:2}"
	folder=$(payload_of "$version")
	rm -rf "$folder"
	mkdir -p "$folder"
	mv "$UNFINISHED/usr/share/ha-lab/bom.json" "$folder/"
	# The last to get its name: with it the payload is complete.
	sync
	mv "$UNFINISHED/usr/bin" "$folder/bin"
	changed=yes
	finish
}

main "$@"
