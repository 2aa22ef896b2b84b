#!/bin/bash
# Bring-up is over: nothing that could add a machine to the cluster stays behind. A bare `vagrant up`
# starts this in the background on the first control plane, so it waits for all nodes first.
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/kubernetes.sh
source "$HERE/kubernetes.sh"

# Name and description of each Secret, never its content.
readonly NAMES='{{range .items}}{{.metadata.name}} {{with .data}}{{with .description}}{{. | base64decode}}{{end}}{{end}}{{"\n"}}{{end}}'

everyone_joined() {
	local names name
	names=$(as_admin get nodes --output 'jsonpath={.items[*].metadata.name}') || return 1
	for name in $KUBERNETES_NODES; do
		[[ " $names " == *" $name "* ]] || {
			echo "$name has not joined yet"
			return 1
		}
	done
}

main() {
	local secrets
	trap forget_secrets EXIT
	wait_for 1800 "every node in the cluster" everyone_joined
	# Ours: kubeadm-init.yaml's token, the one under which kubeadm keeps the uploaded certificates, and these.
	# A token that somebody else made stays theirs.
	secrets=$(as_admin --namespace kube-system get secrets --output go-template="$NAMES" |
		awk '$1 == "kubeadm-certs" || / one bring-up of the lab$/ || /kubeadm-certs/ { print $1 }')
	# The uploaded certificates go with the token that owns them, maybe between the question and this.
	if [[ -n $secrets ]]; then
		# Names of Secrets hold a token's public half only.
		# shellcheck disable=SC2086
		as_admin --namespace kube-system delete secret $secrets --ignore-not-found >/dev/null
		changed=yes
	fi
	forget_by_hand
	finish
}

main
