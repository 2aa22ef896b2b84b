# shellcheck shell=bash
# What keepalived runs with on a load balancer that shares the API's address: load-balancer.sh puts it there,
# unfinished.sh looks for it. Sourced after lib.sh and haproxy.sh.

readonly KEEPALIVED_CONF=/etc/keepalived/keepalived.conf
# keepalived.conf names the other, so it is the last.
readonly KEEPALIVED_FILES=(/etc/keepalived/check.sh "$KEEPALIVED_CONF")

# Whether this lab has two load balancers that share an address.
shares_address() { [[ -n $VIRTUAL_ADDRESS ]]; }

# keepalived_file FILE: its content as the lab has it. Which interface has the lab's address depends on the provider.
keepalived_file() {
	case $1 in
	*/check.sh) cat "$HERE/keepalived-check.sh" ;;
	*/keepalived.conf) sed "s/@INTERFACE@/$(interface_with "$NODE_ADDRESS")/" "$HERE/keepalived.conf" ;;
	*) die "keepalived has no file $1" ;;
	esac
}

# keepalived_accepts FILE. It ends with 6 where all is well but for the security of the check (keepalived(8), "EXIT
# STATUS"): that of the profile `reference` runs as root, as on kubeadm's page.
keepalived_accepts() { keepalived --config-test --use-file "$1" || (($? == 6)); }

# interface_with ADDRESS: nothing if no interface has it.
interface_with() { ip -json -4 address show to "$1/32" | sed -n 's/.*"ifname":"\([^"]*\)".*/\1/p'; }

# give-up-address.sh, if it was killed, leaves that new connections get no answer: keepalived would not notice.
new_connections() { iptables -w "$1" INPUT -d "$VIRTUAL_ADDRESS" -p tcp --dport "${API_ENDPOINT##*:}" --syn -j DROP; }
answer_new_connections() {
	while new_connections -C 2>/dev/null; do
		new_connections -D
		# shellcheck disable=SC2034  # for `finish`
		changed=yes
	done
}

# release_address: keepalived stops here, and says so to the other machine, which takes the address at once (RFC 5798,
# priority 0). Before that, for half a second, new connections get no answer, so that requests in flight are completed
# here; clients' kernels ask again after a second, and then it is the other machine that answers. Connections that are
# still open then, such as watches, are ended: a client that waits for the server to say something would not notice for half
# a minute that its connection leads to another machine now (Go's HTTP/2 client, ReadIdleTimeout).
release_address() {
	if [[ -n $(interface_with "$VIRTUAL_ADDRESS") ]]; then
		new_connections -I
		trap answer_new_connections EXIT
		sleep "$IN_FLIGHT"
		end_sessions
	fi
	systemctl stop keepalived
	answer_new_connections
}
readonly IN_FLIGHT=0.5 # seconds; a request takes a few hundredths

# A HAProxy that does not answer has no say in where the address is.
end_sessions() {
	local name names
	names=$(servers_in_use) || names=""
	for name in $names; do
		ask_haproxy "shutdown sessions server apiserverbackend/$name" >/dev/null || true
	done
}

unread_by_keepalived() { unread_by keepalived /etc/keepalived; }

# Its files that are not the lab's, a line each.
differing_files() {
	local file
	for file in "${KEEPALIVED_FILES[@]}"; do
		keepalived_file "$file" | cmp -s - "$file" || echo "$file"
	done
}

# Prints in which ways keepalived does not run with the lab's files; nothing when it does, or when it has nothing to do.
keepalived_problem() {
	shares_address || return 0
	differing_files | sed "s/$/ differs from the lab's/"
	if ! systemctl is-active --quiet keepalived; then
		echo "keepalived does not run"
	elif [[ -n $(unread_by_keepalived) ]]; then
		echo "keepalived has not read its files since they changed"
	fi
	systemctl is-enabled --quiet keepalived || echo "keepalived does not start at boot"
}
