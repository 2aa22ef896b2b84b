#!/bin/bash
# A control plane that is about to leave: its API server ends. Told to end, it answers what it was asked and closes
# its connections (Kubernetes, "API server shutdown"), so that clients go to the others; killed, it would cut them.
# Its etcd member stays until it has been removed.
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/kubernetes.sh
source "$HERE/kubernetes.sh"

readonly MANIFEST=$MANIFESTS/kube-apiserver.yaml

api_server_ended() {
	! pgrep --exact kube-apiserver >/dev/null || {
		echo "it still runs"
		return 1
	}
}

main() {
	exclusively
	if [[ -e $MANIFEST ]]; then
		# Aside and not away: should the machine stay after all, `up` finds a join that is not complete.
		mv "$MANIFEST" /etc/kubernetes/kube-apiserver.yaml.left
		changed=yes
	fi
	wait_for 60 "this API server, to end" api_server_ended
	finish
}

main
