#!/bin/bash
# Stops the API server of a control plane that is about to leave. Watches, which have no end, go on elsewhere: HAProxy
# ends their sessions once it sees the server down. Its etcd member stays until it is removed.
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/kubernetes.sh
source "$HERE/kubernetes.sh"

main() {
	exclusively
	end_api_server
	finish
}

main
