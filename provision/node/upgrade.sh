#!/bin/bash
# Upgrades this machine to another Kubernetes version, whose programs and images it has (payload.sh): first what kubeadm
# upgrades, then the kubelet (kubernetes.io, "Upgrading kubeadm clusters"). For one machine at a time, whose pods were
# evicted (drain.sh), and whose API server gets no new connections (load-balancer.sh --drain).
#
#   upgrade.sh VERSION ETCD_TAG [--plain]
#   upgrade.sh --asked VERSION ETCD_TAG    prints `upgraded` if this machine is; changes nothing
#   upgrade.sh --etcd TAG        only etcd, to the image with this tag: before a version whose etcd asks for that, or in the
#                                drill that downgrades it
#
# --plain  only what kubeadm's page has, for comparison: leadership stays until etcd ends, and the kubelet asks its own API
#          server.
#
# A control plane's etcd is restarted beside its API server, whose requests then hang (kubeadm#2991). So this machine's
# member hands its leadership over first; its API server's sessions have ended by then (load-balancer.sh --settle). The
# kubelet deletes a static pod's mirror before it starts the new pod (kubelet.go, SyncPod), and would wait half a minute
# for that API server: it asks the load balancer until kubeadm has replaced the static pods, and then sets the server back
# (UpdateKubeletKubeconfigServer).
#
# kubeadm does not upgrade an etcd machine (kubernetes.io, "Set up a High Availability etcd Cluster with kubeadm"): there
# the image in the manifest is another one, and the programs are.
#
# Guard: manifests, programs and the running kubelet have the version. Until they do, kubeadm goes through all of its
# phases, which leave alone what is as it should be.
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/kubernetes.sh
source "$HERE/kubernetes.sh"
# shellcheck source=provision/etcd-members.sh
source "$HERE/etcd-members.sh"

readonly OWN=https://127.0.0.1:2379
readonly VERSIONS='{range .items[*]}{.metadata.name} {.status.nodeInfo.kubeletVersion}{"\n"}{end}'
readonly NODE_STATE='{.status.nodeInfo.kubeletVersion} {.status.conditions[?(@.type=="Ready")].status}'

version="" etcd_tag="" plain=no

is_control_plane() { [[ $NODE_ROLE == control-plane ]]; }
has_others() { if is_control_plane; then has_other_control_planes; else [[ $ETCD_ENDPOINTS == *,* ]]; fi; }

# image_tag COMPONENT: of its manifest.
image_tag() { sed -n "s#^ *image: .*/$1:\([^\"]*\).*#\1#p" "$MANIFESTS/$1.yaml"; }

upgraded() { has_version && runs_well >/dev/null; }
runs_well() { if [[ $NODE_ROLE == etcd ]]; then own_member_healthy; else kubelet_reports; fi; }

has_version() {
	local name
	[[ $(kubeadm version --output short) == "v$version" && $(kubelet --version) == "Kubernetes v$version" ]] || return 1
	! runs_etcd || [[ $(image_tag etcd) == "$etcd_tag" ]] || return 1
	if is_control_plane; then
		for name in kube-apiserver kube-controller-manager kube-scheduler; do
			[[ $(image_tag "$name") == "v$version" ]] || return 1
		done
	fi
}

kubelet_reports() {
	local said
	said=$(as_kubelet get node "$NODE_NAME" --output "jsonpath=$NODE_STATE") || return 1
	[[ $said == "v$version True" ]] || {
		echo "the API shows $NODE_NAME with the kubelet ${said% *}, and as ready: ${said##* }"
		return 1
	}
}

# install_program NAME: each is whole at any time. Not every golden machine has all of them.
install_program() {
	local from
	from=$(payload_of "$version")/bin/$1
	[[ -e $from ]] || return 0
	install -m 755 "$from" "/usr/bin/.$1.new"
	mv "/usr/bin/.$1.new" "/usr/bin/$1"
	changed=yes
}

require_payload() {
	[[ -x $(payload_of "$version")/bin/kubeadm ]] || [[ $(kubeadm version --output short) == "v$version" ]] ||
		die "$NODE_NAME does not have the programs of Kubernetes $version in $(payload_of "$version"): \`./inv up\` puts" \
			"them there"
}

configuration() { as_admin --namespace kube-system get configmap kubeadm-config --output yaml; }

# kubeadm upgrades etcd to the tag in its ClusterConfiguration, if there is one (kubeadm, phases/upgrade/staticpods.go),
# and uploads that again as it was. A ConfigMap's text is four spaces in.
publish_etcd_tag() {
	local found
	is_control_plane && runs_etcd || return 0
	found=$(configuration)
	! grep -q "^ *imageTag: $etcd_tag\$" <<<"$found" || return 0
	sed "/^    etcd:\$/,/^    [^ ]/ { /^ *imageTag: /d; s/^\( *\)dataDir: .*/&\n\1imageTag: $etcd_tag/; }" <<<"$found" |
		as_admin replace --filename - >/dev/null
	changed=yes
}

hand_over_leadership() {
	local listed member
	listed=$(members) || return 0
	member=$(awk -F', ' -v name="$NODE_NAME" '$3 == name ""' <<<"$listed")
	[[ -z $member ]] || move_leadership "$listed" "$member" "$NODE_NAME"
}

# kubelet_asks SERVER: one of its own version or a later one (kubernetes.io, "Version Skew Policy").
kubelet_asks() { ! point_at "$1" "$KUBELET" || restart_kubelet; }

own_member_healthy() { etcd_at "$OWN" endpoint health --write-out simple 2>&1; }

spares_users() { has_others && [[ $plain == no ]]; }
yield_to_others() {
	! runs_etcd || hand_over_leadership
	! is_control_plane || kubelet_asks "https://$API_ENDPOINT"
}

# kubeadm moves each manifest away before it puts the new one there. One that was killed in between has left none.
restore_manifests() {
	local name kept
	for name in $(runs_etcd && echo etcd) kube-apiserver kube-controller-manager kube-scheduler; do
		[[ ! -e $MANIFESTS/$name.yaml ]] || continue
		kept=$(find "$KUBEADM_KEEPS" -path "*/kubeadm-backup-manifests-*/$name.yaml" -printf '%T@ %p\n' 2>/dev/null | sort -n | tail -n 1)
		[[ -n $kept ]] || die "$NODE_NAME has no manifest $MANIFESTS/$name.yaml, and kubeadm has kept none in $KUBEADM_KEEPS"
		repairs "an interrupted upgrade had left no manifest of $name"
		put_manifest "$name" <"${kept#* }"
	done
}

# put_manifest NAME: the kubelet reads every file of that folder whose name does not begin with a dot.
put_manifest() {
	(umask 077 && cat >"$MANIFESTS/.$1.new")
	mv "$MANIFESTS/.$1.new" "$MANIFESTS/$1.yaml"
	changed=yes
}
# Beside manifests, a copy of etcd's data for each upgrade.
readonly KUBEADM_KEEPS=/etc/kubernetes/tmp

# The first machine takes the cluster with it; that is complete before its kubelet is upgraded. `node` goes to the version in
# kubeadm's configuration, which is the former one where etcd was restored from a backup since.
kubeadm_command() {
	local others recorded
	others=$(as_admin get nodes --selector node-role.kubernetes.io/control-plane --output "jsonpath=$VERSIONS") || return 1
	recorded=$(configuration) || return 1
	if grep -q "^ *kubernetesVersion: v$version\$" <<<"$recorded" &&
		awk -v own="$NODE_NAME" -v version="v$version" '$1 != own && $2 == version { found = 1 } END { exit !found }' <<<"$others"; then
		echo node
	else
		echo apply
	fi
}

upgrade_with_kubeadm() {
	local command=node flags=()
	install_program kubeadm
	if is_control_plane; then
		restore_manifests
		publish_etcd_tag
		command=$(kubeadm_command)
		[[ ! -d $HERE/patches ]] || flags+=(--patches "$HERE/patches")
		! spares_users || yield_to_others
	fi
	[[ $command == node ]] || flags=("v$version" --yes "${flags[@]}")
	log "kubeadm upgrade $command"
	with_notices "kubeadm upgrade $command" kubeadm upgrade "$command" "${flags[@]}" "$(preflight)"
	changed=yes
}

upgrade_kubelet() {
	local name
	# kubeadm has done that, if the server was its controlPlaneEndpoint.
	! is_control_plane || ! spares_users || point_at "$OWN_API" "$KUBELET" || true
	for name in kubelet kubectl etcdctl etcdutl; do install_program "$name"; done
	[[ ! -e $(payload_of "$version")/bom.json ]] || install -m 644 "$(payload_of "$version")/bom.json" /usr/share/ha-lab/bom.json
	systemctl restart kubelet
}

upgrade() {
	require_payload
	if [[ $NODE_ROLE == etcd ]]; then
		install_program kubeadm
		upgrade_etcd
	else
		upgrade_with_kubeadm
	fi
	upgrade_kubelet
	! runs_etcd || wait_for 120 "this machine's etcd" own_member_healthy
	! is_control_plane || wait_for 120 "this machine's API server" own_api_server_ready
	[[ $NODE_ROLE == etcd ]] || wait_for 120 "the API to show the new kubelet" kubelet_reports
	has_version || die "kubeadm ended well, but not all static pods of $NODE_NAME have the images of Kubernetes $version:" \
		"\`grep image: $MANIFESTS/*\` there shows which; \`./inv up\` tries again"
}

# Its manifest is all that kubeadm changes for another image.
upgrade_etcd() {
	if [[ $(image_tag etcd) != "$etcd_tag" ]]; then
		! has_others || yield_to_others
		sed "s#^\( *image: .*/etcd:\).*#\1$etcd_tag#" "$MANIFESTS/etcd.yaml" | put_manifest etcd
	fi
	wait_for 180 "etcd of this machine to run with its new image" etcd_runs_with_tag
	! is_control_plane || {
		wait_for 120 "this machine's API server" own_api_server_ready
		! has_others || kubelet_asks "$OWN_API"
	}
	# Last: kubeadm is to find the tag of what runs.
	publish_etcd_tag
}

etcd_runs_with_tag() {
	local said
	said=$(etcd_at "$OWN" endpoint status --write-out fields) || return 1
	said=$(sed -n 's/^"Version" : "\(.*\)"$/\1/p' <<<"$said")
	[[ $said == "${etcd_tag%-*}" ]] || {
		echo "it is still version $said"
		return 1
	}
	own_member_healthy
}

main() {
	[[ ${1:-} != --asked ]] || {
		version=$2 etcd_tag=$3
		! upgraded || echo upgraded
		return
	}
	[[ ${3:-} != --plain ]] || plain=yes
	(($# == 2)) || [[ $plain == yes ]] || die "usage: upgrade.sh VERSION ETCD_TAG [--plain], or upgrade.sh --etcd TAG"
	version=$1 etcd_tag=$2
	exclusively
	[[ $NODE_ROLE == etcd ]] || require_load_balancer
	if [[ $version == --etcd ]]; then
		upgrade_etcd
	elif ! upgraded; then
		upgrade
	fi
	if [[ $version == --etcd ]]; then
		rm -rf "$(payload_of "etcd-$etcd_tag")" # containerd has the image by now
	else
		rm -rf "$PAYLOADS" "$KUBEADM_KEEPS"
	fi
	finish
}

main "$@"
