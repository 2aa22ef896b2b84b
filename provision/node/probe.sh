#!/bin/bash
# Prints whether this machine has joined:
#
#   fresh    it never joined
#   partial  a join or init was interrupted; or files are missing or broken, and the machine has to join again to get them
#   damaged  files are missing or broken, and this control plane can restore them
#   joined   it has joined completely, and has all its files
#
# Reasons are on standard error. It asks files only, so that it answers at once on a machine whose cluster is down.
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/kubernetes.sh
source "$HERE/kubernetes.sh"
# shellcheck source=provision/node-files.sh
source "$HERE/node-files.sh"

main() {
	local has
	if [[ $NODE_ROLE == load-balancer ]]; then
		echo joined
		return
	fi
	has=$(membership)
	if [[ $has == partial || $has == damaged ]]; then
		broken_files >&2
		[[ $NODE_ROLE == worker ]] || lost_files >&2
	fi
	echo "$has"
}

main
