#!/bin/bash
# The first control plane: kubeadm init through the load balancer. Where that is done already, this run's
# token and certificate key are made good for the machines that are to join.
#
#   control-plane-init.sh [--stdin] [--alone] [NAME…]
#
# NAME… are machines that will join and have nothing of the cluster. Guard: the whole of init is there, down
# to its last phases, asked of this machine's API server. A machine with half of it is undone and done
# again, but only when the caller knows that no other machine belongs to the cluster yet (--alone): undoing
# the first of three would lose a member.
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/kubernetes.sh
source "$HERE/kubernetes.sh"

# Prints what init has not done yet. The addons and the label are its last phases.
not_initialised() {
	own_api_server || return 1
	as_admin --namespace kube-public get configmap cluster-info --output name >/dev/null || return 1
	as_admin --namespace kube-system get configmap/kubeadm-config deployment/coredns daemonset/kube-proxy \
		--output name >/dev/null || return 1
	labelled_control_plane
}

init() {
	wait_for 60 "the container runtime" systemctl is-active containerd
	fill "$HERE/kubeadm-init.yaml"
	# The CA was made on the host, so that the load balancer and the joins can verify it from the start;
	# kubeadm uses what it finds (kubernetes.io, "Using custom certificates").
	install -d -m 755 /etc/kubernetes/pki
	install -m 644 "$HERE/ca.crt" /etc/kubernetes/pki/ca.crt
	install -m 600 /run/ha-lab/ca.key /etc/kubernetes/pki/ca.key
	kubeadm init --config "$FILLED" --upload-certs --skip-token-print --skip-certificate-key-print \
		"$(preflight)"
	date -Is >"$INITIALISED"
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

main() {
	local alone=no
	exclusively
	trap forget_secrets EXIT
	[[ ${1:-} != --stdin ]] || { take_secrets && shift; }
	[[ ${1:-} != --alone ]] || { alone=yes && shift; }
	if [[ ! -e $ADMIN && ! -e $MANIFESTS/kube-apiserver.yaml ]]; then
		init
	elif [[ $alone == yes && ! -e $INITIALISED ]] && ! (wait_for 60 "the earlier init" not_initialised); then
		undo alone
		init
	else
		wait_for 180 "this control plane, which was initialised before," not_initialised
		(($# == 0)) || admit "$@"
	fi
	finish
}

main "$@"
