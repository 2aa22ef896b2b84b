#!/bin/bash
# Which of the machines that all others need, load balancers, control planes and etcd's, this one reaches: a line for
# each with its name and, where it is not reached, why. Asks the port of ssh, which is open on every machine that the
# kit can ask; a refusal may be the host's firewall's. Changes nothing.
#
#   reach.sh [--require | --api]
#
# --api      asks only the API's address, once; it ends with 1, and says why, when that is not reached
# --require  the same, after up to 20 s
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
readonly SECONDS_EACH=$((3 * LAB_PATIENCE)) # a first packet that is lost is sent again after one

# reached NAME ADDRESS
reached() {
	local said code=0
	said=$(LC_ALL=C timeout "$SECONDS_EACH" bash -c "exec 3<>/dev/tcp/$2/22" 2>&1) || code=$?
	if ((code == 0)); then
		echo "$1"
	elif ((code == 124)); then
		echo "$1 no answer within $SECONDS_EACH s"
	else
		echo "$1 ${said##*: }"
	fi
}

all_others() {
	local address name
	while read -r address name; do
		[[ $name != "$NODE_NAME" ]] || continue
		[[ " $LOAD_BALANCERS ${CONTROL_PLANES:-} " == *" $name "* || ",$ETCD_ENDPOINTS," == *",https://$address:2379,"* ]] || continue
		reached "$name" "$address" &
	done <"$HERE/hosts"
	wait
}

load_balancer_reached() {
	local said
	said=$(reached "the load balancer" "${API_ENDPOINT%:*}")
	[[ $said == "the load balancer" ]] || {
		echo "${said#the load balancer }"
		return 1
	}
}

if [[ ${1:-} == --api ]]; then
	load_balancer_reached
elif [[ ${1:-} == --require ]]; then
	(wait_for 20 "$NODE_NAME to reach the load balancer at ${API_ENDPOINT%:*}" load_balancer_reached) ||
		die "$NODE_NAME does not reach the load balancer, so it can't take part in the cluster;" \
			"\`./inv doctor\` shows what on the host blocks it"
else
	all_others
fi
