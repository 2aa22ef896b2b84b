#!/bin/bash
# Makes this machine's etcd member the only one, with the data that it has stored (etcd, "Disaster recovery",
# --force-new-cluster). For a cluster that has lost its majority for good: writes that this member had not received are
# lost. `./inv up` then makes the other control planes again. It refuses while etcd has a majority.
#
# etcd's data as it was is kept in /var/lib/etcd.before-sole-member, or .2 and so on where that is there. After an
# interruption, run this script again; a manifest that it has left unfinished is written again by the next `./inv up`.
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/kubernetes.sh
source "$HERE/kubernetes.sh"
# shellcheck source=provision/node-files.sh
source "$HERE/node-files.sh"

readonly MANIFEST=$MANIFESTS/etcd.yaml ASIDE=/etc/kubernetes/etcd.yaml.before-sole-member
readonly DATA=/var/lib/etcd KEPT=/var/lib/etcd.before-sole-member OWN=https://127.0.0.1:2379

etcd_ended() {
	! pgrep -x etcd >/dev/null || {
		echo "it is still running"
		return 1
	}
}

# A list that a majority agrees to, with no other member in it.
is_sole_member() {
	local listed
	listed=$(etcd_at "$OWN" member list --write-out simple 2>&1) || {
		echo "$listed"
		return 1
	}
	[[ $(wc -l <<<"$listed") == 1 && $listed == *", $NODE_NAME, "* ]] || {
		echo "etcd's members: ${listed//$'\n'/; }"
		return 1
	}
}

# Complete or not at all, and never in the place of an earlier copy, which may be of another time.
keep_data() {
	local number=1
	kept=$KEPT
	while [[ -e $kept ]]; do
		number=$((number + 1))
		kept=$KEPT.$number
	done
	rm -rf "$kept.incomplete"
	cp -a "$DATA" "$kept.incomplete"
	mv "$kept.incomplete" "$kept"
}

main() {
	local kept=
	exclusively
	[[ -d $DATA/member ]] || die "$NODE_NAME has no etcd data, so its member can't be the only one"
	if etcd_at "$OWN" member list --write-out simple >/dev/null 2>&1; then
		die "etcd has a majority, so no data has to be lost: \`./inv up\` repairs the rest"
	fi
	# An earlier run has put it there and was interrupted.
	[[ -e $ASIDE ]] || mv "$MANIFEST" "$ASIDE"
	rm -f "$MANIFEST"
	changed=yes
	wait_for 90 "etcd to end" etcd_ended
	keep_data
	# The manifests' folder is read at any time: what appears there is complete.
	sed 's/^\( *\)- etcd$/&\n\1- --force-new-cluster/' "$ASIDE" >"$ASIDE.forced"
	grep -q force-new-cluster "$ASIDE.forced" || die "$ASIDE has no line \`- etcd\` to put --force-new-cluster after"
	chmod 600 "$ASIDE.forced"
	mv "$ASIDE.forced" "$MANIFEST"
	wait_for 120 "$NODE_NAME's etcd member to be the only one" is_sole_member
	# With that flag each start would remove the members that have joined meanwhile.
	mv "$ASIDE" "$MANIFEST"
	wait_for 120 "etcd to start without --force-new-cluster" restarted_as_sole_member
	log "etcd has one member now, on $NODE_NAME. Its data as it was before is in $kept"
	finish
}

restarted_as_sole_member() {
	if pgrep -f -- '^etcd .*--force-new-cluster' >/dev/null; then
		echo "it still runs with --force-new-cluster"
		return 1
	fi
	is_sole_member
}

main
