#!/bin/bash
# Gives the API's address to the other load balancer, as the first step of taking this one away: no new connection fails.
# Open connections, such as watches, end.
#
# keepalived is left stopped: `load-balancer.sh` starts it again, and so does the next boot.
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/haproxy.sh
source "$HERE/haproxy.sh"
# shellcheck source=provision/keepalived.sh
source "$HERE/keepalived.sh"

main() {
	exclusively
	shares_address || die "this lab has one load balancer, whose address can't move"
	if systemctl is-active --quiet keepalived; then
		changed=yes
		release_address
	fi
	finish
}

main "$@"
