#!/bin/bash
# Restarts the kubelet after a recovery, so that it registers its Node again if the backup lacks it.
#
#   restart-kubelet.sh [SUBNET]     SUBNET is that of the Node's pods in the recovered cluster; none without a Node
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/kubernetes.sh
source "$HERE/kubernetes.sh"

# A Node that the backup lacks is registered again, and one that was created again since had another subnet then. Until flannel's
# agent knows, new pods would get addresses of the former subnet, which is another node's now.
remove_former_subnet() { # [SUBNET]
	local former
	former=$(subnet_of_pods)
	[[ -n $former && $former != "$(bridge_address "${1:-}")" ]] || return 0
	repairs "pods on $NODE_NAME were at $former, which is not of its Node's subnet any more"
	systemctl stop kubelet
	rm -f /run/flannel/subnet.env # without it no pod starts on the pods' network
	ip link delete cni0 2>/dev/null || true
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
