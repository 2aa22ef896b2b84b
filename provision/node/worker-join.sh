#!/bin/bash
# A worker: waits for the API through the load balancer, then joins. All workers do so at once.
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/kubernetes.sh
source "$HERE/kubernetes.sh"

readonly ATTEMPTS=3

# kubeadm removes the bootstrap kubeconfig when the kubelet has its own certificate.
not_joined() {
	[[ -e $KUBELET && ! -e /etc/kubernetes/bootstrap-kubelet.conf ]] || {
		echo "the kubelet has no certificate of its own yet"
		return 1
	}
	as_kubelet get node "$NODE_NAME" --output name
}

join() {
	local attempt
	wait_for 600 "the API through the load balancer" api_through_load_balancer
	for ((attempt = 1; attempt <= ATTEMPTS; attempt++)); do
		fill "$HERE/kubeadm-join.yaml"
		if kubeadm join --config "$FILLED" "$(preflight)"; then
			changed=yes
			return
		fi
		log "attempt $attempt of $ATTEMPTS to join failed"
		undo
	done
	die "kubeadm join failed $ATTEMPTS times (its own words are above)"
}

main() {
	exclusively
	trap 'forget_secrets; forget_by_hand' EXIT
	[[ ${1:-} != --stdin ]] || { take_secrets && shift; }
	if [[ -e $KUBELET || -e /etc/kubernetes/bootstrap-kubelet.conf ]]; then
		start_kubelet
		wait_for 180 "the API through the load balancer, which a machine that has joined needs," \
			api_through_load_balancer
		if ! (wait_for 120 "the earlier join" not_joined); then
			undo
			join
		fi
		heard_of_since_boot
	else
		join
	fi
	finish
}

main "$@"
