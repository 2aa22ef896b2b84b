#!/bin/bash
# An etcd machine, which is no node of the cluster: a kubelet without a cluster runs one static pod (kubernetes.io, "Set up a
# High Availability etcd Cluster with kubeadm"). What is missing or broken is made again.
#
#   etcd.sh [--stdin] [--existing]
#
# --existing  another machine has a complete member of this etcd, so this machine never begins a new one with an empty folder:
#             it would vote as the member that the others know, and has forgotten what that had acknowledged. It is added as a
#             new member instead, once a majority answers.
#
# Guard: this machine's member votes, and is healthy.
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/kubernetes.sh
source "$HERE/kubernetes.sh"
# shellcheck source=provision/node-files.sh
source "$HERE/node-files.sh"
# shellcheck source=provision/etcd-members.sh
source "$HERE/etcd-members.sh"

readonly DATA=/var/lib/etcd/member OWN=https://127.0.0.1:2379 OWN_PEER=https://$NODE_ADDRESS:2380
OTHERS=$(tr , '\n' <<<"$ETCD_ENDPOINTS" | grep -vxF "https://$NODE_ADDRESS:2379" | paste -sd ,) || true
readonly OTHERS

write_manifest_for() {
	fill_etcd_configuration "$@"
	write_manifest etcd
	changed=yes
}

# From the others, since this machine's own member may not run, or be a learner, which answers no such question.
others_members() { etcd_at "$OTHERS" member list --write-out simple; }
of_this_machine() { awk -F', ' -v name="$NODE_NAME" -v peer="$OWN_PEER" '$3 == name "" || $4 == peer'; }

# Whether the others have removed this machine's member, or it has lost data that it had acknowledged: then it ends each
# time that it starts.
is_useless() { [[ -n $(etcd_data_problem) ]] && ! pgrep -x etcd >/dev/null; }

# stop_etcd: the kubelet stops a static pod whose manifest is gone.
stop_etcd() {
	[[ ! -e $MANIFESTS/etcd.yaml ]] || rm "$MANIFESTS/etcd.yaml"
	wait_for 60 "etcd to end" etcd_ended
}
etcd_ended() {
	! pgrep -x etcd >/dev/null || {
		echo "it still runs"
		return 1
	}
}

# One learner at a time; and for some seconds after another change, or its own start, etcd refuses the next one.
added_as_learner() {
	local listed own
	listed=$(others_members) || return 1
	own=$(of_this_machine <<<"$listed")
	if [[ -n $own && -n $(client_urls <<<"$own") ]]; then
		log "removing the etcd member ${own%%,*}, which an earlier machine $NODE_NAME left behind"
		etcd_at "$OTHERS" member remove "${own%%,*}" || return 1
		own=
	fi
	[[ -n $own ]] || etcd_at "$OTHERS" member add "$NODE_NAME" --learner --peer-urls "$OWN_PEER"
}

# One that was added and never started has no name yet.
join_members() {
	local listed
	wait_for 300 "etcd's other members to take this machine's as a learner" added_as_learner
	listed=$(others_members)
	mapfile -t members < <(awk -F', ' -v own="$NODE_NAME" '{ print ($3 == "" ? own : $3) "=" $4 }' <<<"$listed")
	write_manifest_for existing "${members[@]}"
}

# A learner that has caught up is promoted (etcd, "Learner").
votes() {
	local own listed
	listed=$(others_members) || return 1
	own=$(of_this_machine <<<"$listed")
	[[ $own != *", false" ]] || return 0
	etcd_at "$OTHERS" member promote "${own%%,*}"
}

# Whether the others do not list this machine's member: then it belongs to another etcd, such as the one before a recovery.
is_unknown() {
	local listed
	listed=$(others_members 2>/dev/null) && [[ -n $listed && -z $(of_this_machine <<<"$listed") ]]
}

healthy_member() { etcd_at "$OWN" endpoint health --write-out simple 2>&1; }
# It is not healthy: a learner serves nothing that needs a majority. An interrupted run may have left one.
is_learner() { etcd_at "$OWN" endpoint status --write-out json 2>/dev/null | grep -q '"isLearner":true'; }
settled() { healthy_member || is_learner || is_useless || is_unknown || [[ -n $(crash_problem) ]]; }

require_no_crash() {
	local problem
	problem=$(crash_problem)
	[[ -z $problem ]] || healthy_member >/dev/null ||
		die "$problem. \`./inv logs\` collects the complete log; \`./inv replace $NODE_NAME\` makes the machine again, if etcd" \
			"has a majority without it"
}

# With data of its own it starts first: without its vote the others may have no majority. Sets `useless`.
continue_as_member() {
	[[ -z $(manifest_problem etcd) ]] || write_manifest_for existing "$INITIAL_CLUSTER"
	start_kubelet
	watch_containers
	wait_for 180 "etcd of this machine to answer with a majority" settled
	if is_useless; then
		log "this machine's member is of no use any more: $(etcd_data_problem)"
		useless=yes
	elif healthy_member >/dev/null; then
		return
	elif is_unknown; then
		log "this machine's member belongs to another etcd than the other members"
		useless=yes
	elif is_learner; then
		wait_for 180 "this machine's member to vote" votes
	fi
}

# As a new member, without data.
join_again() {
	stop_etcd
	rm -rf "$DATA"
	join_members
	start_kubelet
	watch_containers
	wait_for 180 "this machine's member to vote" votes
}

main() {
	local existing=no useless=no broken members=()
	exclusively
	trap remove_secrets EXIT
	[[ ${1:-} != --stdin ]] || { read_secrets && shift; }
	[[ ${1:-} != --existing ]] || existing=yes
	broken=$(broken_files)
	[[ ! -e $ONCE_COMPLETE || -z $broken ]] || repairs "$broken"
	repair_etcd_certificates
	service_manager
	if [[ $existing == no ]]; then
		[[ ! -e $ONCE_COMPLETE || -d $DATA ]] ||
			die "$NODE_NAME was a member of etcd, and its data in $DATA is gone. No other machine has a complete member, so the" \
				"cluster is lost: with a backup, \`./inv recover FILE\`; without one, \`./inv destroy\`, then \`./inv up\`"
		[[ -z $(manifest_problem etcd) ]] || write_manifest_for new "$INITIAL_CLUSTER"
		start_kubelet
		watch_containers
		wait_for 300 "etcd to have a majority" settled
	else
		[[ ! -d $DATA ]] || continue_as_member
		[[ -d $DATA && $useless == no ]] || join_again
	fi
	require_no_crash
	wait_for 60 "etcd of this machine to answer" healthy_member
	note_complete
	finish
}

main "$@"
