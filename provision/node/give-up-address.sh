#!/bin/bash
# Gives the API's address to the other load balancer, as the first step of taking this one away: no new connection fails.
# keepalived stops here, and says goodbye to the other machine, which takes the address at once (RFC 5798, priority 0).
# Before that, for half a second, new connections get no answer, so that requests in flight are completed here; clients'
# kernels ask again after a second, and then it is the other machine that answers. Open connections, such as watches, end.
#
# keepalived is left stopped: `load-balancer.sh` starts it again, and so does the next boot.
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/keepalived.sh
source "$HERE/keepalived.sh"
readonly IN_FLIGHT=0.5 # seconds; a request takes a few hundredths

main() {
	exclusively
	shares_address || die "this lab has one load balancer, whose address can't move"
	if systemctl is-active --quiet keepalived; then
		changed=yes
		if [[ -n $(interface_with "$VIRTUAL_ADDRESS") ]]; then
			new_connections -I
			trap answer_new_connections EXIT
			sleep "$IN_FLIGHT"
		fi
		systemctl stop keepalived
	fi
	finish
}

main "$@"
