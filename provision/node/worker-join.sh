#!/bin/bash
# A worker: waits for the API through the load balancer, then joins. All workers join in parallel.
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/kubernetes.sh
source "$HERE/kubernetes.sh"
# shellcheck source=provision/node-files.sh
source "$HERE/node-files.sh"

readonly ATTEMPTS=3

# Prints what is missing.
joined() {
	[[ -e $KUBELET && ! -e $BOOTSTRAP ]] || {
		echo "the kubelet has no certificate of its own yet"
		return 1
	}
	as_kubelet get node "$NODE_NAME" --output name
}

# A host's clock that is ahead looks like a certificate that has expired, and a certificate from that time looks not yet
# valid once the clock is right. Only a user knows which it is.
require_valid_dates() {
	local problem
	problem=$(dates_problem "$KUBELET_CERTIFICATE")
	[[ -z $problem ]] ||
		die "$NODE_NAME's kubelet can't take part in the cluster: $problem. A wrong clock does this, too, so the machine" \
			"was not reset. If the clock is wrong, set it (containers have the host's), then \`./inv up\`. If it is" \
			"right, \`./inv replace $NODE_NAME\` makes the machine again"
}

join() {
	local attempt
	wait_for 600 "the API through the load balancer" api_ready
	token_kubeconfig
	wait_for 120 "the API to accept this run's bootstrap token" token_is_accepted
	for ((attempt = 1; attempt <= ATTEMPTS; attempt++)); do
		fill "$HERE/kubeadm-join.yaml"
		if with_notices "kubeadm join" kubeadm join --config "$FILLED" "$(preflight)"; then
			changed=yes
			return
		fi
		log "attempt $attempt of $ATTEMPTS to join failed"
		reset_node
	done
	die "kubeadm join failed $ATTEMPTS times (kubeadm's own messages are above)"
}

main() {
	local broken
	exclusively
	trap 'remove_secrets; remove_manual_files' EXIT
	[[ ${1:-} != --stdin ]] || { read_secrets && shift && require_load_balancer; }
	remove_bootstrap_kubeconfig
	if [[ -e $KUBELET || -e $BOOTSTRAP ]] || lost_its_kubeconfig; then
		broken=$(broken_files)
		if [[ -n $broken ]]; then
			log "$NODE_NAME has to join again:"
			repairs "$broken"
		else
			start_kubelet
		fi
		if [[ -n $broken ]] || ! joined >/dev/null 2>&1; then
			[[ -n $broken ]] || require_valid_dates
			wait_for 180 "the API through the load balancer" api_ready
			if [[ -n $broken ]] || ! (wait_for 120 "the earlier join to be complete" joined); then
				require_join_possible
				reset_node
				join
			fi
		fi
		wait_until_api_has_heard
	else
		join
	fi
	finish
}

main "$@"
