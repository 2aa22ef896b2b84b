#!/bin/bash
# The first control plane: kubeadm init through the load balancer. Where that is done already, this run's
# token and certificate key are made good for the machines that are to join.
#
#   control-plane-init.sh [--stdin] [--alone] [--by-hand] [NAME…]
#
# NAME… are machines that will join and have nothing of the cluster; with --by-hand somebody joins them who
# has no other way to this run's secrets. Guard: the whole of init is there, down to its last phases, asked of
# this machine's API server, whoever did it. A machine with half of it is undone and done again, but only when
# the caller knows that no other machine belongs to the cluster yet (--alone): undoing the first of three would
# lose a member.
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/kubernetes.sh
source "$HERE/kubernetes.sh"

# Prints what init has not done yet. The addons and the label are its last phases.
not_initialised() {
	own_api_server || return 1
	as_admin --namespace kube-public get configmap cluster-info --output name >/dev/null || return 1
	no_addons || return 1
	labelled_control_plane
}

no_addons() {
	as_admin --namespace kube-system get configmap/kubeadm-config deployment/coredns daemonset/kube-proxy \
		--output name >/dev/null
}

# Whether this control plane may hold somebody's work; one that was initialised by hand has no word of it from us.
initialised_once() { [[ -e $INITIALISED ]] || kubelet_has_its_certificate; }

init() {
	wait_for 60 "the container runtime" systemctl is-active containerd
	fill "$HERE/kubeadm-init.yaml"
	lab_s_ca
	kubeadm init --config "$FILLED" --upload-certs --skip-token-print --skip-certificate-key-print \
		"$(preflight)"
	date -Is >"$INITIALISED"
	changed=yes
}

# A cluster that was made here by hand is taken over as it is, or refused where nobody could join it.
take_over() {
	local why=
	cmp -s "$HERE/ca.crt" "$PKI/ca.crt" || why="its CA is not the lab's"
	grep -qs "server: https://$API_ENDPOINT\$" "$ADMIN" || why=${why:-its API is not at the load balancer}
	[[ -z $why ]] ||
		die "the cluster that was made here by hand can't become the lab's: $why. If nothing in it is worth" \
			"keeping: \`sudo kubeadm reset --force\` on $NODE_NAME, then \`./inv up\`, or to init by" \
			"hand again \`./inv up --until control-plane\`, which puts the lab's CA back"
	wait_for 180 "this control plane, which was initialised before," own_api_server
	no_addons 2>/dev/null || add_addons
}

# The last phase; kubeadm was stopped before it.
add_addons() {
	fill "$HERE/kubeadm-init.yaml"
	kubeadm init phase addon all --config "$FILLED" --kubeconfig "$ADMIN"
	changed=yes
}

# kubeadm-init, "upload-certs": the uploaded certificates and the token are gone once a lab is up.
admit() {
	log "making token and certificate key good for $*"
	fill "$HERE/kubeadm-init.yaml"
	kubeadm init phase bootstrap-token --config "$FILLED" --kubeconfig "$ADMIN" --skip-token-print >/dev/null
	kubeadm init phase upload-certs --upload-certs --config "$FILLED" --kubeconfig "$ADMIN" \
		--skip-certificate-key-print >/dev/null
	# A machine that was lost leaves its Node behind, Ready for most of a minute, and kubeadm refuses to
	# join under the name of a Ready one (kubernetes#81056).
	as_admin delete node "$@" --ignore-not-found
	changed=yes
}

# Machines that the cluster does not have, whatever their files say: their kubelets will have to join anew.
missing() {
	local names name
	names=$(as_admin get nodes --output 'jsonpath={.items[*].metadata.name}') || return 1
	for name in $KUBERNETES_NODES; do
		[[ " $names " == *" $name "* ]] || echo "$name"
	done
}

# sed's words for the gaps in kubeadm-join.yaml, as somebody who did init by hand has them.
leave_secrets() {
	# shellcheck source=/dev/null
	source "$SECRETS" # BOOTSTRAP_TOKEN and CERTIFICATE_KEY
	printf 's/@%s@/%s/\n' BOOTSTRAP_TOKEN "$BOOTSTRAP_TOKEN" CERTIFICATE_KEY "$CERTIFICATE_KEY" |
		place 600 "$FOR_HANDS" || true
	unset BOOTSTRAP_TOKEN CERTIFICATE_KEY
}

main() {
	local alone=no by_hand=no newcomers
	exclusively
	trap forget_secrets EXIT
	[[ ${1:-} != --stdin ]] || { take_secrets && shift; }
	[[ ${1:-} != --alone ]] || { alone=yes && shift; }
	[[ ${1:-} != --by-hand ]] || { by_hand=yes && shift; }
	if [[ ! -e $ADMIN && ! -e $MANIFESTS/kube-apiserver.yaml ]]; then
		init
	elif [[ $alone == yes ]] && ! initialised_once && ! (wait_for 60 "the earlier init" not_initialised); then
		undo alone
		init
	else
		start_kubelet
		[[ -e $INITIALISED ]] || take_over
		wait_for 180 "this control plane, which was initialised before," not_initialised
		[[ -e $INITIALISED ]] || date -Is >"$INITIALISED"
		heard_of_since_boot
		newcomers=$(printf '%s\n' "$@" && missing)
		# Names, a word each.
		# shellcheck disable=SC2046
		[[ -z ${newcomers//$'\n'/} ]] || admit $(sort -u <<<"$newcomers")
	fi
	[[ $by_hand == no || $# == 0 ]] || leave_secrets
	finish
}

main "$@"
