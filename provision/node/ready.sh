#!/bin/bash
# Waits until every node that lab.yaml names is Ready, and every pod of the system with it.
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/kubernetes.sh
source "$HERE/kubernetes.sh"

nodes_not_ready() {
	local ready name
	ready=$(as_admin get nodes --output \
		'jsonpath={range .items[*]}{.metadata.name}={.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}') ||
		return 1
	for name in $KUBERNETES_NODES; do
		grep -qx "$name=True" <<<"$ready" || {
			echo "$name is not Ready"
			return 1
		}
	done
}

# The controller manager takes these taints away some moments after a node has become Ready, and until then
# pods do not go there.
nodes_tainted() {
	local tainted
	tainted=$(as_admin get nodes --output \
		'jsonpath={range .items[*]}{.metadata.name}={.spec.taints[*].key}{"\n"}{end}') || return 1
	tainted=$(grep -E 'node.kubernetes.io/(not-ready|unreachable)' <<<"$tainted") || return 0
	echo "still tainted: ${tainted//$'\n'/, }"
	return 1
}

# A node is Ready once there is a configuration for its pods' networks, and flannel's pod once its program has
# begun: flannel itself says, in a condition of the node, that it is up.
flannel_not_up() {
	local said name
	said=$(as_admin get nodes --output \
		'jsonpath={range .items[*]}{.metadata.name}={.status.conditions[?(@.type=="NetworkUnavailable")].status}{"\n"}{end}') ||
		return 1
	for name in $KUBERNETES_NODES; do
		grep -qx "$name=False" <<<"$said" || {
			echo "flannel is not up on $name"
			return 1
		}
	done
}

pods_not_ready() {
	local pods
	# A Job's pod that has ended is not Ready and never will be.
	pods=$(as_admin get pods --all-namespaces --field-selector=status.phase!=Succeeded,status.phase!=Failed --output \
		'jsonpath={range .items[*]}{.metadata.namespace}/{.metadata.name}={.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}') ||
		return 1
	pods=$(grep -E '^kube-' <<<"$pods" | grep -v '=True$') || return 0
	echo "not ready: ${pods//$'\n'/ }"
	return 1
}

main() {
	local began
	began=$(date +%s%3N)
	wait_for 300 "all nodes Ready" nodes_not_ready
	echo "ha-lab: all nodes are Ready after $(($(date +%s%3N) - began)) ms"
	[[ -e $HERE/pod-network/manifest.yaml ]] || wait_for 60 "the pod network on every node" flannel_not_up
	wait_for 60 "pods may go to every node" nodes_tainted
	wait_for 300 "all system pods Ready" pods_not_ready
	finish
}

main
