# shellcheck shell=bash
# What HAProxy runs with on a load balancer: load-balancer.sh puts it there, unfinished.sh looks for it.
# Sourced after lib.sh.

readonly HAPROXY_CFG=/etc/haproxy/haproxy.cfg
# The checks in haproxy.cfg trust this CA and no other. haproxy.cfg names the others, so it is the last.
readonly HAPROXY_FILES=(/etc/haproxy/kubernetes-ca.crt /etc/haproxy/cut-off.lua "$HAPROXY_CFG")

# haproxy_file FILE: its content as the lab has it.
haproxy_file() {
	case $1 in
	*/kubernetes-ca.crt) cat "$HERE/ca.crt" ;;
	*/cut-off.lua) cat "$HERE/cut-off.lua" ;;
	*/haproxy.cfg) cat /usr/share/ha-lab/haproxy.packaged.cfg "$HERE/haproxy.cfg" ;;
	*) die "HAProxy has no file $1" ;;
	esac
}

readonly ADMIN_SOCKET=/run/haproxy/admin.sock
readonly HAPROXY_PATIENCE=$((5 * LAB_PATIENCE)) # seconds for one answer

# ask_haproxy COMMAND: HAProxy's answer, which has one byte at least. Without -t socat drops one that comes later than
# half a second. It ends with 0 without an answer, too, which must not be taken for the empty line of a success.
ask_haproxy() {
	local said
	said=$(socat -t "$HAPROXY_PATIENCE" - "UNIX-CONNECT:$ADMIN_SOCKET" <<<"$1" && echo .) || return
	[[ $said != . ]] || {
		echo "HAProxy gave no answer to \`$1\` within $HAPROXY_PATIENCE s" >&2
		return 1
	}
	printf %s "${said%.}"
}

# The servers that have sessions. Column 2 is the server, 5 its current sessions (HAProxy management guide, "9.1. CSV format").
servers_in_use() {
	ask_haproxy "show stat" | awk -F, '$1 == "apiserverbackend" && $2 != "BACKEND" && $5 > 0 { print $2 }'
}

# haproxy_says SECONDS: `show stat`, within so many seconds. Without -t socat would wait half a second for the answer, and
# drop one that comes later. No answer is a failure, not a HAProxy without servers: socat ends with 0 then, too.
haproxy_says() {
	local said
	said=$(echo "show stat" | timeout --kill-after 1 "$1" socat -t "$1" - UNIX-CONNECT:/run/haproxy/admin.sock) || return
	[[ -n $said ]] || {
		echo "HAProxy gave no answer within $1 s"
		return 1
	}
	echo "$said"
}

# unread_by SERVICE FOLDER: its files there that changed after it had last read any, at its start or a reload.
unread_by() {
	local since
	since=$(systemctl show --property StateChangeTimestamp --timestamp=us+utc --value "$1")
	find "$2" -type f -newermt "${since:-1970-01-01}"
}

unread_by_haproxy() { unread_by haproxy /etc/haproxy; }

# Prints in which ways HAProxy does not run with the lab's files; nothing when it does.
haproxy_problem() {
	local file
	for file in "${HAPROXY_FILES[@]}"; do
		haproxy_file "$file" | cmp -s - "$file" || echo "$file differs from the lab's"
	done
	if ! systemctl is-active --quiet haproxy; then
		echo "HAProxy does not run"
	elif [[ -n $(unread_by_haproxy) ]]; then
		echo "HAProxy has not read its files since they changed"
	fi
	systemctl is-enabled --quiet haproxy || echo "HAProxy does not start at boot"
}
