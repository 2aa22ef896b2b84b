#!/bin/bash
# On a load balancer, beside the lab's own HAProxy: another one on loopback, with the lab's checks and cut-off.lua, and
# four servers with a session each. At one instant three of them change: `drained`, `refusing` (no longer listens) and
# `silent` (accepts connections and says nothing); `well` goes on. Prints a line for each session that has ended within
# LONGEST seconds after that: the server, and the milliseconds.
set -euo pipefail

readonly SERVERS=(drained refusing silent well) FIRST=17001 FRONT=17000 LONGEST=12
work=$(mktemp -d)

end() {
	trap '' TERM
	kill -CONT 0
	kill -TERM 0 # all that this script has started; it has a process group of its own
	rm -rf "$work"
}
trap end EXIT

now() { echo $((${EPOCHREALTIME/./} / 1000)); }

cat >"$work/answer" <<'ANSWER'
#!/bin/bash
while read -r line; do
	case $line in
	who*) echo "$1" ;;
	OPTIONS*) printf 'HTTP/1.0 200 OK\r\n\r\n' && exit ;;
	esac
done
ANSWER
chmod +x "$work/answer"

cat >"$work/haproxy.cfg" <<CONFIGURATION
global
	stats socket $work/admin.sock level admin
	lua-load /etc/haproxy/cut-off.lua
defaults
	mode tcp
	timeout client 1h
	timeout server 1h
	timeout connect 300ms
	timeout check 1s
frontend front
	bind 127.0.0.1:$FRONT
	default_backend apiserverbackend
backend apiserverbackend
	balance roundrobin
	option httpchk
	default-server check inter 1s fastinter 250ms downinter 500ms fall 2 rise 1
CONFIGURATION

declare -A process
port=$FIRST
for name in "${SERVERS[@]}"; do
	socat "TCP-LISTEN:$port,bind=127.0.0.1,fork,reuseaddr" "EXEC:$work/answer $name" 2>>"$work/log" &
	process[$name]=$!
	echo "	server $name 127.0.0.1:$port" >>"$work/haproxy.cfg"
	port=$((port + 1))
done
sleep 0.5
haproxy -f "$work/haproxy.cfg" >>"$work/log" 2>&1 &
sleep 1.5

# One session, whose server is known by its answer.
session() {
	local name began
	exec 3<>"/dev/tcp/127.0.0.1/$FRONT"
	echo who >&3
	read -r name <&3
	touch "$work/open-$name"
	until [[ -e $work/changed ]]; do sleep 0.05; done
	began=$(<"$work/changed")
	read -r _ <&3 || true
	echo "$name $(($(now) - began))"
}
for _ in "${SERVERS[@]}"; do session & done
sleep 1
for name in "${SERVERS[@]}"; do
	[[ -e $work/open-$name ]] || { echo "no session with $name" >&2 && cat "$work/log" >&2 && exit 1; }
done

now >"$work/changed.new"
echo "set server apiserverbackend/drained state drain" | socat -t 5 - "UNIX-CONNECT:$work/admin.sock" >/dev/null
kill -TERM "${process[refusing]}"
kill -STOP "${process[silent]}"
mv "$work/changed.new" "$work/changed"
sleep "$LONGEST"
