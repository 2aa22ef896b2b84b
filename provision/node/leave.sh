#!/bin/bash
# Stops the API server of a control plane that is about to leave. After SIGTERM it accepts no more connections and answers
# what it was asked (Kubernetes, "API server shutdown"); killed, it would cut that off. Watches, which have no end, go
# on elsewhere: HAProxy ends their sessions once it sees the server down. Its etcd member stays until it is removed.
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/kubernetes.sh
source "$HERE/kubernetes.sh"

readonly MANIFEST=$MANIFESTS/kube-apiserver.yaml

api_server_closed() {
	local listening
	listening=$(ss --no-header --listening --tcp --numeric "sport = :6443") || return 1
	[[ -z $listening ]] || {
		echo "it still takes connections"
		return 1
	}
}

main() {
	exclusively
	if [[ -e $MANIFEST ]]; then
		# Aside and not away: should the machine stay after all, node.sh puts it back.
		mv "$MANIFEST" "$API_SERVER_ASIDE"
		changed=yes
	fi
	wait_for 60 "this API server to take no more connections" api_server_closed
	finish
}

main
