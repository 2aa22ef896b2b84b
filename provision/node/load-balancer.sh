#!/bin/bash
# The load balancer: the packaged HAProxy configuration with the lab's part behind it. Checked before
# it is used, reloaded only when it changed, so that a second run cuts no connection.
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
	haproxy -c -q -f "$checked" || die "HAProxy refuses the rendered configuration (its own words are above)"
	place 644 /etc/haproxy/haproxy.cfg <"$checked" && reload=yes
	rm -f "$checked"
}

# Files that were put here by hand, as ours are, after HAProxy had last read any.
runs_what_was_before() {
	local since
	since=$(systemctl show --property StateChangeTimestamp --timestamp=us+utc --value haproxy)
	[[ -n $(find /etc/haproxy -type f -newermt "$since") ]]
}

main() {
	exclusively
	own_network
	# The checks in haproxy.cfg trust this CA and no other.
	place 644 /etc/haproxy/kubernetes-ca.crt <"$HERE/ca.crt" && reload=yes
	place 644 /etc/haproxy/cut-off.lua <"$HERE/cut-off.lua" && reload=yes
	haproxy_cfg
	systemctl is-enabled --quiet haproxy || systemctl enable --quiet haproxy
	if ! systemctl is-active --quiet haproxy; then
		systemctl restart haproxy
		changed=yes
	elif [[ ${reload:-no} == yes ]] || runs_what_was_before; then
		systemctl reload haproxy
		changed=yes
	fi
	finish
}

main
