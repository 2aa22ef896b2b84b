#!/bin/bash
# The load balancer: the packaged HAProxy configuration with the lab's part behind it. Checked before
# it is used, reloaded only when it changed, so that a second run cuts no connection.
#
#   load-balancer.sh [--drain NAME…]
#
# API servers NAME… get no new connections from now on, those that are open go on; all others get some.
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"

own_network() {
	[[ $HERE/network.env -ef /etc/ha-lab/network.env ]] || {
		place 644 /etc/ha-lab/network.env <"$HERE/network.env" && restart=yes
		place 644 /etc/ha-lab/hosts <"$HERE/hosts" && restart=yes
	}
	if [[ ${restart:-no} == yes ]] || ! systemctl is-active --quiet ha-lab-network; then
		systemctl restart ha-lab-network
	fi
}

haproxy_cfg() {
	local checked=/etc/haproxy/haproxy.cfg.new
	cat /usr/share/ha-lab/haproxy.packaged.cfg "$HERE/haproxy.cfg" >"$checked"
	haproxy -c -f "$checked" || die "HAProxy refuses the rendered configuration (its own words are above)"
	place 644 /etc/haproxy/haproxy.cfg <"$checked" && reload=yes
	rm -f "$checked"
}

readonly ADMIN_SOCKET=/run/haproxy/admin.sock

# ask_haproxy COMMAND: HAProxy's answer. Without -t socat drops one that comes later than half a second.
ask_haproxy() { socat -t 5 - "UNIX-CONNECT:$ADMIN_SOCKET" <<<"$1"; }

# Bit 0x08 of the administrative state: drained on request (HAProxy management guide, "show servers state").
drained_servers() {
	ask_haproxy "show servers state apiserverbackend" |
		awk '$2 == "apiserverbackend" && int($7 / 8) % 2 { print $4 }'
}

# set_server NAME STATE: HAProxy says nothing when it has done it.
set_server() {
	local said
	said=$(ask_haproxy "set server apiserverbackend/$1 state $2")
	[[ -z ${said//[[:space:]]/} ]] || die "HAProxy does not set $1 to $2: $said"
	changed=yes
}

# drain_only NAME…: these and no others. What an earlier run drained and did not bring back is ready again.
drain_only() {
	local name drained wanted=" $* "
	drained=" $(drained_servers | tr '\n' ' ')"
	for name in $drained; do
		[[ $wanted == *" $name "* ]] || set_server "$name" ready
	done
	for name in "$@"; do
		[[ $drained == *" $name "* ]] || ! has_server "$name" || set_server "$name" drain
	done
}

has_server() { grep -q "^[[:space:]]*server $1 " /etc/haproxy/haproxy.cfg; }

main() {
	exclusively
	[[ ${1:-} != --drain ]] || shift
	own_network
	# The checks in haproxy.cfg trust this CA and no other.
	place 644 /etc/haproxy/kubernetes-ca.crt <"$HERE/ca.crt" && reload=yes
	place 644 /etc/haproxy/cut-off.lua <"$HERE/cut-off.lua" && reload=yes
	haproxy_cfg
	systemctl is-enabled --quiet haproxy || systemctl enable --quiet haproxy
	if ! systemctl is-active --quiet haproxy; then
		systemctl restart haproxy
		changed=yes
	elif [[ ${reload:-no} == yes ]] || [[ -n $(unread_by_haproxy) ]]; then
		# Files as ours may be there by hand, and HAProxy may not have been told.
		systemctl reload haproxy
		changed=yes
	fi
	wait_for 10 "HAProxy's administrative socket" test -S "$ADMIN_SOCKET"
	drain_only "$@"
	finish
}

main "$@"
