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
	haproxy -c -f "$checked" || die "HAProxy refuses the rendered configuration (its own words are above)"
	place 644 /etc/haproxy/haproxy.cfg <"$checked" && reload=yes
	rm -f "$checked"
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
	elif [[ ${reload:-no} == yes ]] || [[ -n $(unread_by_haproxy) ]]; then
		# Files as ours may be there by hand, and HAProxy may not have been told.
		systemctl reload haproxy
		changed=yes
	fi
	finish
}

main
