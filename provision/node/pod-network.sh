#!/bin/bash
# The pod network's manifest, from the first control plane. Applied only where the cluster differs
# from it, or its pods were changed since, so that a second run touches no agent.
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/kubernetes.sh
source "$HERE/kubernetes.sh"

readonly MANIFEST=/run/ha-lab/pod-network.yaml

main() {
	local pods
	exclusively
	wait_for 60 "this control plane's API server" own_api_server_ready
	pod_network_manifest >"$MANIFEST"
	if ! pod_network_applied "$MANIFEST" 2>/dev/null; then
		apply_manifest "$MANIFEST" "the pod network"
		pods=$(ask_pod_network "$MANIFEST" --ignore-not-found | hash_of_pods)
		kubectl create configmap ha-lab-pod-network --namespace kube-system --dry-run=client --output yaml \
			--from-literal "sha256=$(hash_of "$MANIFEST")" --from-literal "pods=$pods" | as_admin apply --filename -
		changed=yes
	fi
	finish
}

main
