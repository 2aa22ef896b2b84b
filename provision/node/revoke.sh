#!/bin/bash
# Removes everything that could add a machine to the cluster, once all have joined. A bare `vagrant up` starts this in
# the background on the first control plane, so it waits for all nodes first.
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/kubernetes.sh
source "$HERE/kubernetes.sh"

all_nodes_joined() {
	local names name
	names=$(as_admin get nodes --output 'jsonpath={.items[*].metadata.name}') || return 1
	for name in $KUBERNETES_NODES; do
		[[ " $names " == *" $name "* ]] || {
			echo "$name has not joined yet"
			return 1
		}
	done
}

main() {
	local secrets
	trap remove_secrets EXIT
	wait_for 1800 "all nodes to join" all_nodes_joined
	secrets=$(secrets_of_runs)
	# Kubernetes deletes the uploaded certificates with the token that owns them, maybe between these two commands.
	if [[ -n $secrets ]]; then
		# Names of Secrets hold a token's public half only.
		# shellcheck disable=SC2086
		as_admin --namespace kube-system delete secret $secrets --ignore-not-found >/dev/null
		changed=yes
	fi
	remove_manual_files
	finish
}

main
