#!/bin/bash
# Removes a node from the cluster, from a control plane that stays: first its etcd member, if it has one, then its
# Node. An etcd machine, which is no node, is removed from one of the others. It may be running, stopped or lost. kubeadm keeps no other list of nodes: its ConfigMaps kubeadm-config
# and cluster-info hold the API's address only.
#
#   remove-member.sh NAME [ADDRESS] [--node-only]
#
# ADDRESS      finds the member of a machine that was added to etcd and never started: it has no name yet.
# --node-only  for a machine without etcd: that is not asked.
#
# It refuses if the members that stay would have no quorum. A node that neither etcd nor the API has is unchanged.
#
# The machine that leaves is not reset: it is deleted next, and `kubeadm reset` only prepares a machine for another use.
# Should it start again before that, its etcd ends by itself (etcd.io, "Runtime reconfiguration").
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/kubernetes.sh
source "$HERE/kubernetes.sh"
# shellcheck source=provision/etcd-members.sh
source "$HERE/etcd-members.sh"

name="" address="" node_only=no

# (`""`: awk would compare what looks like a number as one.)
members_of_node() {
	awk -F', ' -v name="$name" -v peer="https://$address:2380" '$3 == name "" || ($3 == "" && $4 == peer)'
}
lines_of() { awk 'NF { n++ } END { print n + 0 }' <<<"$1"; }

# quorum_without ID: prints which members are missing. etcd has a check of its own (--strict-reconfig-check), which says
# only "unhealthy cluster".
quorum_without() {
	local others urls healthy missing needed
	others=$(members) || return 1
	others=$(voting_members_without "$1" <<<"$others")
	urls=$(client_urls <<<"$others")
	healthy=$(healthy_among "$urls")
	needed=$(($(lines_of "$others") / 2 + 1))
	missing=$(awk -F', ' '{ print $3 == "" ? $4 : $3 " (" $5 ")" }' <<<"$others" | grep -vF "${healthy:-none}")
	(($(lines_of "$healthy") >= needed)) || {
		echo "only $(lines_of "$healthy") of the $(lines_of "$others") members that stay are healthy, and $needed" \
			"are needed. Not healthy: ${missing//$'\n'/, }; start those first"
		return 1
	}
}

# Right after another change etcd refuses for some seconds, until its members have been connected for 5 s.
member_removed() { # ID
	local listed
	listed=$(members) || return 1
	! grep -q "^$1, " <<<"$listed" || etcd member remove "$1"
}

remove_members() {
	local listed member id
	while true; do
		wait_for 20 "etcd (it responds only while a majority of its members is running)" members
		listed=$(members) || continue
		member=$(members_of_node <<<"$listed" | head -n 1)
		[[ -n $member ]] || return 0
		id=${member%%,*}
		# A learner has no vote.
		if [[ $member == *", false" ]]; then
			[[ -n $(voting_members_without "$id" <<<"$listed") ]] ||
				die "$name has the only voting member of etcd, so that the cluster would lose all its data"
			wait_for 30 "a quorum of etcd without $name" quorum_without "$id"
			move_leadership "$listed" "$member" "$name"
		fi
		log "removing the etcd member $id of $name"
		wait_for 60 "etcd to remove $name's member $id" member_removed "$id"
		changed=yes
	done
}

node_deleted() {
	local left
	as_admin delete node "$name" --wait=false --ignore-not-found || return 1
	left=$(as_admin get node "$name" --ignore-not-found --output name) || return 1
	[[ -z $left ]] || {
		echo "the API still has the Node"
		return 1
	}
}

main() {
	local word found
	for word; do
		case $word in
		--node-only) node_only=yes ;;
		-*) die "remove-member.sh does not know the option $word" ;;
		*) if [[ -z $name ]]; then name=$word; else address=$word; fi ;;
		esac
	done
	[[ -n $name ]] || die "usage: remove-member.sh NAME [ADDRESS] [--node-only]"
	[[ $name != "$NODE_NAME" ]] || die "$name can't remove itself: run this on another $NODE_ROLE"
	exclusively
	[[ $node_only == yes ]] || remove_members
	[[ $NODE_ROLE != etcd ]] || {
		finish
		return
	}
	found=$(as_admin get node "$name" --ignore-not-found --output name)
	if [[ -n $found ]]; then
		wait_for 60 "the API to delete the Node $name" node_deleted
		changed=yes
	fi
	finish
}

main "$@"
