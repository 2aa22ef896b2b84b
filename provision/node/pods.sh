#!/bin/bash
# Runs what its standard input says in several pods at once, with kubectl exec, from this control plane: `== POD EXIT-CODE` and
# what was printed, for each. Lines of input: POD and the words for its `sh -c "$ASK"`. The one argument is the pods' namespace.
# Where machines are emulated, the pods are asked in turn.
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/kubernetes.sh
source "$HERE/kubernetes.sh"

weigh_no_more_than_pods "$@"

ANSWERS=$(mktemp -d)
readonly ANSWERS
trap 'rm -rf "$ANSWERS"' EXIT

main() {
	local namespace=$1 pod words pods=()
	set +e
	trap - ERR
	while read -r pod words; do
		pods+=("$pod")
		{
			code=0
			# The pod's own environment has the script. The words are addresses and names.
			# shellcheck disable=SC2086,SC2016
			timeout --kill-after 1 $((12 * LAB_PATIENCE)) kubectl --kubeconfig "$ADMIN" --namespace "$namespace" exec "$pod" -- \
				sh -c 'eval "$ASK"' ask $words >"$ANSWERS/$pod" 2>&1 </dev/null || code=$?
			echo "$code" >"$ANSWERS/$pod.code"
		} &
		# Each kubectl takes a second of an emulated CPU before it asks.
		((LAB_PATIENCE == 1)) || wait
	done
	wait
	for pod in "${pods[@]}"; do
		echo "== $pod $(<"$ANSWERS/$pod.code")"
		cat "$ANSWERS/$pod"
		echo
	done
}

main "$@"
