#!/bin/bash
# The load balancer: the packaged HAProxy configuration with the lab's part behind it. Checked before
# it is used, reloaded only when it changed, so that a second run cuts no connection. The same for keepalived, where two
# load balancers share the API's address: a reload does not move it.
#
#   load-balancer.sh [--settle SECONDS] [--drain NAME…]
#
# API servers NAME… get no new connections from now on, and cut-off.lua ends those that are open after four seconds. All
# others get new connections, those too that an earlier run has drained. A NAME that is not in the configuration has no
# server to drain.
# --settle  waits until the drained servers have no session left, or these SECONDS have passed: the profile `reference`
#           ends none.
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/haproxy.sh
source "$HERE/haproxy.sh"
# shellcheck source=provision/keepalived.sh
source "$HERE/keepalived.sh"

own_network() {
	[[ $HERE/network.env -ef /etc/ha-lab/network.env ]] || {
		place 644 /etc/ha-lab/network.env <"$HERE/network.env" && restart=yes
		place 644 /etc/ha-lab/hosts <"$HERE/hosts" && restart=yes
	}
	if [[ ${restart:-no} == yes ]] || ! systemctl is-active --quiet ha-lab-network; then
		systemctl restart ha-lab-network
	fi
}

haproxy_files() {
	local file checked=$HAPROXY_CFG.new
	for file in "${HAPROXY_FILES[@]}"; do
		if [[ $file == "$HAPROXY_CFG" ]]; then
			haproxy_file "$file" >"$checked"
			haproxy -c -f "$checked" || die "HAProxy refuses the rendered configuration (its own words are above)"
			rm -f "$checked"
		fi
		! place 644 "$file" < <(haproxy_file "$file") || reload=yes
	done
}

process_id() { ask_haproxy "show info" | sed -n 's/^Pid: //p'; }

answers() {
	local id
	id=$(process_id) || return 1
	[[ -n $id && $id != "${1:-}" ]] || {
		echo "it answers as process ${id:-without a number}"
		return 1
	}
}

# systemctl returns while the old process still answers on the socket. What is drained there is drained no longer in
# the new one, as the state of servers does not outlive a reload (haproxy/haproxy#2085).
reload_haproxy() {
	local old
	old=$(process_id) || old=""
	systemctl reload haproxy
	wait_for 30 "the process that HAProxy's reload starts" answers "$old"
}

# Column 2 is the backend, 4 the server, 7 its administrative state, in which bit 0x08 is "drained on request"
# (HAProxy management guide, "show servers state"; the same in 2.6 and 3.0).
drained_servers() {
	ask_haproxy "show servers state apiserverbackend" |
		awk '$2 == "apiserverbackend" && int($7 / 8) % 2 { print $4 }'
}

# set_server NAME STATE: HAProxy answers with an empty line when it has done it.
set_server() {
	local said
	said=$(ask_haproxy "set server apiserverbackend/$1 state $2") ||
		die "it is not known whether HAProxy's server $1 is in the state \`$2\` now (the reason is above)"
	[[ -z ${said//[[:space:]]/} ]] || die "HAProxy refuses the state \`$2\` for its server $1: $said"
	changed=yes
}

# drain_only NAME…: these and no others. What an earlier run drained and did not bring back is ready again.
drain_only() {
	local name drained wanted=" $* "
	drained=$(drained_servers) || die "it is not known which of HAProxy's servers are drained (the reason is above)"
	drained=" ${drained//$'\n'/ } "
	for name in $drained; do
		[[ $wanted == *" $name "* ]] || set_server "$name" ready
	done
	for name in "$@"; do
		[[ $drained == *" $name "* ]] || ! has_server "$name" || set_server "$name" drain
	done
}

sessions_left() {
	local name left
	left=$(servers_in_use) || return 0
	for name in "$@"; do
		! grep -qx "$name" <<<"$left" || return 0
	done
	return 1
}

# settle SECONDS NAME…
settle() {
	local deadline=$((SECONDS + $1 * LAB_PATIENCE))
	shift
	while ((SECONDS < deadline)) && sessions_left "$@"; do sleep "$PAUSE"; done
}

# same_script_security FILE: whether keepalived may reload that file. 2.3.3 drops its check where a reload takes script
# security away ("Unable to set default user keepalived_script for script").
same_script_security() {
	[[ ! -e $KEEPALIVED_CONF ]] || [[ $(grep -c enable_script_security "$KEEPALIVED_CONF") == $(grep -c enable_script_security "$1") ]]
}

keepalived_files() {
	local file checked=$KEEPALIVED_CONF.new mode=755
	[[ -n $(interface_with "$NODE_ADDRESS") ]] || die "no interface has this machine's address on the lab's network, $NODE_ADDRESS"
	for file in "${KEEPALIVED_FILES[@]}"; do
		if [[ $file == "$KEEPALIVED_CONF" ]]; then
			mode=644
			keepalived_file "$file" >"$checked"
			keepalived_accepts "$checked" ||
				die "keepalived refuses the rendered configuration (its own words are above)"
			same_script_security "$checked" || keepalived_anew=yes
			rm -f "$checked"
		fi
		! place "$mode" "$file" < <(keepalived_file "$file") || reread=yes
	done
}

# After HAProxy, which it asks.
keepalived_runs() {
	keepalived_files
	answer_new_connections
	systemctl is-enabled --quiet keepalived || systemctl enable --quiet keepalived
	[[ ${keepalived_anew:-no} == no ]] || release_address
	if ! systemctl is-active --quiet keepalived; then
		systemctl restart keepalived
		changed=yes
	elif [[ ${reread:-no} == yes ]] || [[ -n $(unread_by_keepalived) ]]; then
		systemctl reload keepalived
		changed=yes
	fi
	# Whether it is this machine or the other one: joins need the address.
	wait_for 30 "a load balancer to take the API's address, $VIRTUAL_ADDRESS" "$HERE/reach.sh" --api
}

has_server() { grep -q "^[[:space:]]*server $1 " /etc/haproxy/haproxy.cfg; }

main() {
	local seconds=0
	exclusively
	[[ ${1:-} != --settle ]] || { seconds=$2 && shift 2; }
	[[ ${1:-} != --drain ]] || shift
	own_network
	haproxy_files
	systemctl is-enabled --quiet haproxy || systemctl enable --quiet haproxy
	if ! systemctl is-active --quiet haproxy; then
		systemctl restart haproxy
		changed=yes
	elif [[ ${reload:-no} == yes ]] || [[ -n $(unread_by_haproxy) ]]; then
		# The files may be as they should and yet unread: a user may have put them there.
		reload_haproxy
		changed=yes
	fi
	wait_for 10 "HAProxy to answer on its administrative socket" answers
	! shares_address || keepalived_runs
	drain_only "$@"
	((seconds == 0)) || settle "$seconds" "$@"
	finish
}

main "$@"
