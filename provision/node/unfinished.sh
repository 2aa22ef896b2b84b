#!/bin/bash
# Steps besides joins that `up` has still to carry out here, a name a line: what an interrupted run leaves. For
# `./inv plan`: it asks the guards of those steps, changes nothing and waits for nothing.
#
# Fails where the cluster's API can't be asked. A control plane without a cluster has nothing of it to finish.
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/kubernetes.sh
source "$HERE/kubernetes.sh"

haproxy_configured() {
	systemctl is-active --quiet haproxy &&
		cat /usr/share/ha-lab/haproxy.packaged.cfg "$HERE/haproxy.cfg" | cmp -s - /etc/haproxy/haproxy.cfg &&
		[[ -z $(unread_by_haproxy) ]]
}

of_cluster() {
	local manifest secrets
	api_ready
	manifest=$(mktemp /run/manifest.XXXXXX)
	# shellcheck disable=SC2064 # this very file
	trap "rm -f '$manifest'" EXIT
	pod_network_manifest >"$manifest"
	pod_network_applied "$manifest" 2>/dev/null || echo pod-network
	secrets=$(nodes_and_secrets)
	secrets=$(secrets_of_runs "$secrets")
	[[ -z $secrets ]] || echo revoke
}

if [[ $NODE_ROLE == load-balancer ]]; then
	haproxy_configured || echo load-balancer
elif [[ $NODE_ROLE == control-plane && -e $ADMIN ]]; then
	of_cluster
fi
