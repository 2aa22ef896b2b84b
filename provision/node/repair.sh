#!/bin/bash
# Makes the files of a control plane again that are missing or broken, before the cluster is asked for anything: without
# this machine's member etcd may have no majority. Where it has one, control-plane-init.sh and control-plane-join.sh do so.
#
#   repair.sh --stdin
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/kubernetes.sh
source "$HERE/kubernetes.sh"
# shellcheck source=provision/node-files.sh
source "$HERE/node-files.sh"

main() {
	exclusively
	trap remove_secrets EXIT
	[[ ${1:-} != --stdin ]] || read_secrets
	restore_ca_certificate
	[[ $(membership) != damaged ]] || repair_control_plane
	finish
}

main "$@"
