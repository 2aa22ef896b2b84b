#!/bin/bash
# Prints what moves on this machine, again and again, for lab/workshop/watch/: over one ssh connection that stays open,
# since a login costs more than a question. Changes nothing. Ends by itself after so many rounds, or with the first
# line that has no reader. Each answer is as facts.sh prints it; `== end 0` ends a round.
#
#   follow.sh PAUSE ROUNDS NAME…     PAUSE is in seconds; names are backends, address and etcd-status
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/kubernetes.sh
source "$HERE/kubernetes.sh"
# shellcheck source=provision/haproxy.sh
source "$HERE/haproxy.sh"
# shellcheck source=provision/keepalived.sh
source "$HERE/keepalived.sh"

weigh_no_more_than_pods "$@"

readonly PAUSE_BETWEEN=$1 ROUNDS=$2 NAMES=("${@:3}")
readonly LONGEST=$((2 * LAB_PATIENCE)) # seconds for one answer: later ones would be about the past

answer() {
	case $1 in
	backends) haproxy_says "$LONGEST" ;;
	address) [[ -n $(interface_with "$VIRTUAL_ADDRESS") ]] && echo here || echo elsewhere ;;
	etcd-status) own_member_says "$LONGEST" endpoint status ;;
	*) die "there is no answer to $1" ;;
	esac
}

main() {
	local round name said code
	set +e
	trap - ERR
	for ((round = 0; round < ROUNDS; round++)); do
		for name in "${NAMES[@]}"; do
			said=$(answer "$name" 2>&1)
			code=$?
			printf '== %s %s\n%s\n' "$name" "$code" "$said" || exit 0
		done
		printf '== end 0\n' || exit 0
		sleep "$PAUSE_BETWEEN"
	done
}

main
