#!/bin/bash
# Removes everything that could add a machine to the cluster, once all have joined. A bare `vagrant up` starts this in
# the background on the first control plane, so it waits for all nodes first.
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/kubernetes.sh
source "$HERE/kubernetes.sh"

main() {
	local found secrets
	trap remove_secrets EXIT
	if ! found=$(nodes_and_secrets 2>/dev/null) || ! all_nodes_in "$found" >/dev/null; then
		wait_for 1800 "all nodes to join" all_nodes_joined
		found=$(nodes_and_secrets)
	fi
	secrets=$(secrets_of_runs "$found")
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
