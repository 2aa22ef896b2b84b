#!/bin/bash
# The pod network's manifest, from the first control plane, with what enforces NetworkPolicies. Applied only where the
# cluster differs from it, or its pods were changed since, so that a second run touches no agent. Where nothing is to
# enforce policies, what did is removed; its rules then go with policy-rules.sh.
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/kubernetes.sh
source "$HERE/kubernetes.sh"

readonly MANIFEST=/run/ha-lab/pod-network.yaml

remove_policy_agent() {
	local objects
	objects=$(policy_objects)
	[[ -n $objects ]] || return 0
	log "removing kube-router"
	# Kinds and names.
	# shellcheck disable=SC2086
	as_admin --namespace kube-system delete --wait=false $objects
	wait_for 60 "kube-router's pods to end" policy_pods_ended
	changed=yes
}

policy_pods_ended() {
	local pods code=0
	pods=$(as_admin --namespace kube-system get pods --selector "$POLICY_PART" --output name 2>&1) || code=1
	echo "$pods"
	[[ $code == 0 && -z $pods ]]
}

require_policy_image() {
	local missing
	missing=$(missing_image "$HERE/pod-network/kube-router.yaml")
	[[ -z $missing ]] ||
		die "$NODE_NAME has no image $missing, since it was made by an earlier version of the kit: set network.policy to" \
			"none in lab.yaml, or make the lab again (\`./inv destroy\`, then \`./inv up\`)"
}

main() {
	local pods
	exclusively
	wait_for 60 "this control plane's API server" own_api_server_ready
	pod_network_manifest >"$MANIFEST"
	[[ $NETWORK_POLICY != none ]] || remove_policy_agent
	if ! pod_network_applied "$MANIFEST" 2>/dev/null; then
		[[ $NETWORK_POLICY == none ]] || require_policy_image
		apply_manifest "$MANIFEST" "the pod network"
		pods=$(ask_pod_network "$MANIFEST" --ignore-not-found | hash_of_pods)
		kubectl create configmap ha-lab-pod-network --namespace kube-system --dry-run=client --output yaml \
			--from-literal "sha256=$(hash_of "$MANIFEST")" --from-literal "pods=$pods" | as_admin apply --filename -
		changed=yes
	fi
	finish
}

main
