#!/bin/bash
# Removes the rules that kube-router has left on this machine, if lab.yaml no longer wants it: its chains still deny
# what it was last configured to deny. Its own --cleanup-config does not remove them (2.1.0 looks through no table), and flushes IPVS.
# Where a kube-router runs, it is a user's own, and is left alone.
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/kubernetes.sh
source "$HERE/kubernetes.sh"

# removal CHAIN…: one transaction. A chain that is named with a colon is emptied.
removal() {
	echo '*filter'
	printf ':%s - [0:0]\n' "$@"
	iptables-save --table filter | sed -n '/ -j KUBE-ROUTER-/s/^-A \(INPUT\|FORWARD\|OUTPUT\) /-D \1 /p'
	printf -- '-X %s\n' "$@"
	echo COMMIT
}

# The kernel lets go of a set a moment after the last rule that uses it.
remove_sets() {
	local name
	for name in $(ipset list -name | grep -E '^KUBE-(SRC|DST)-'); do
		ipset destroy "$name" || return 1
	done
}

main() {
	local found chains
	exclusively
	found=$(policy_chains)
	if [[ -n $found ]]; then
		mapfile -t chains <<<"$found"
		removal "${chains[@]}" | iptables-restore --noflush --wait
		wait_for 10 "the sets of kube-router's rules to be unused" remove_sets
		repairs "rules of kube-router were left"
		changed=yes
	fi
	finish
}

main
