#!/bin/bash
# The pod network's manifest, from the first control plane. Applied only where the cluster differs
# from it, so that a second run touches no agent.
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/kubernetes.sh
source "$HERE/kubernetes.sh"

readonly MANIFEST=/run/ha-lab/pod-network.yaml

# Everything of the manifest is in the cluster, and it is this manifest: the cluster itself keeps the
# hash of what was applied last. (`kubectl diff` would say the same in six seconds.)
manifest_applied() {
	local applied
	applied=$(as_admin --namespace kube-system get configmap ha-lab-pod-network --output 'jsonpath={.data.sha256}') &&
		[[ $applied == "$(hash_of_manifest)" ]] &&
		as_admin get --filename "$MANIFEST" --output name >/dev/null && with_labs_part
}

# A user may have applied flannel's original manifest since.
with_labs_part() {
	[[ -e $HERE/pod-network/manifest.yaml ]] ||
		as_admin --namespace kube-flannel get daemonset kube-flannel-ds --output \
			'jsonpath={.spec.template.spec.containers[*].args}' | grep -q -- --iface-can-reach
}

hash_of_manifest() { sha256sum <"$MANIFEST" | cut -d' ' -f1; }

main() {
	exclusively
	wait_for 60 "this control plane's API server" own_api_server_ready
	kubectl kustomize --load-restrictor LoadRestrictionsNone "$HERE/pod-network" >"$MANIFEST"
	if ! manifest_applied 2>/dev/null; then
		as_admin apply --filename "$MANIFEST"
		kubectl create configmap ha-lab-pod-network --namespace kube-system --dry-run=client --output yaml \
			--from-literal "sha256=$(hash_of_manifest)" | as_admin apply --filename -
		changed=yes
	fi
	finish
}

main
