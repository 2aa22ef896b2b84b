#!/bin/bash
# Restarts the kubelet after a recovery, so that it registers its Node again if the backup lacks it.
#
#   restart-kubelet.sh [SUBNET]     SUBNET is that of the Node's pods in the recovered cluster; omitted if it has no Node
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/kubernetes.sh
source "$HERE/kubernetes.sh"

# A Node that is missing from the backup gets a new subnet, and one that was created again since had another. Until flannel's agent
# writes the new one, new pods would get addresses that now belong to another node. The agent writes it only when it starts.
remove_former_subnet() { # [SUBNET]
	local former
	former=$(subnet_of_pods)
	network_is_flannel && [[ -n $former && $former != "$(bridge_address "${1:-}")" ]] || return 0
	repairs "pods on $NODE_NAME used $former, which is no longer its Node's subnet"
	systemctl stop kubelet
	stop_agent
	stop_sandboxes_with_addresses
	rm -f /run/flannel/subnet.env # without it no pod starts on the pods' network
	ip link delete cni0 2>/dev/null || true
}

stop_agent() {
	local pods
	command -v crictl >/dev/null || return 0 # machines of an earlier version of the kit may have none
	pods=$(crictl pods --namespace kube-flannel --state ready --quiet)
	# Ids, a line each.
	# shellcheck disable=SC2086
	[[ -z $pods ]] || crictl stopp $pods
}

# The first address after the subnet's own, with its prefix, as flannel writes it.
bridge_address() { # SUBNET
	local address=${1%/*}
	[[ -z $1 ]] || echo "${address%.*}.$((${address##*.} + 1))/${1#*/}"
}

main() {
	exclusively
	remove_former_subnet "$@"
	systemctl restart kubelet
	changed=yes
	finish
}

main "$@"
