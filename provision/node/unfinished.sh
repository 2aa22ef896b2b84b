#!/bin/bash
# The steps besides joins that `up` has left to do here: those that an interrupted run left, and what was deleted or
# changed since. A line for each reason, `STEP REASON…`, or only the step. For `./inv plan`: it asks the guards of those
# steps, changes nothing and waits for nothing.
#
# Fails where the cluster's API can't be asked. A control plane without a cluster has nothing of it to finish.
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/kubernetes.sh
source "$HERE/kubernetes.sh"
# shellcheck source=provision/haproxy.sh
source "$HERE/haproxy.sh"
# shellcheck source=provision/keepalived.sh
source "$HERE/keepalived.sh"
# shellcheck source=provision/cluster-objects.sh
source "$HERE/cluster-objects.sh"

of_cluster() {
	local manifest secrets found missing problem
	problem=$(api_ready) || {
		echo "$problem" >&2
		exit 1
	}
	found=$(ask_cluster 2>&1) || {
		refuses_administrator "$found" || {
			echo "$found" >&2
			exit 1
		}
		echo "control-plane-init the API refuses admin.conf, so the cluster lacks its ClusterRoleBinding $ADMINISTRATORS"
		return
	}
	missing=$(missing_objects "$found")
	awk 'NF { print "control-plane-init", "the cluster lacks its", $2, $4 }' <<<"$missing"
	version_problem "$found" | sed 's/^/control-plane-init /'
	manifest=$(mktemp /run/manifest.XXXXXX)
	# shellcheck disable=SC2064 # this very file
	trap "rm -f '$manifest'" EXIT
	pod_network_manifest >"$manifest"
	pod_network_applied "$manifest" 2>/dev/null || echo pod-network
	addon_problems "$found" | sed 's/^/addons /'
	secrets=$(nodes_and_secrets)
	secrets=$(secrets_of_runs "$secrets")
	[[ -z $secrets ]] || echo revoke
}

if [[ $NODE_ROLE == load-balancer ]]; then
	{
		haproxy_problem
		keepalived_problem
	} | sed 's/^/load-balancer /'
elif [[ $NODE_ROLE == control-plane && -e $ADMIN ]]; then
	of_cluster
fi
