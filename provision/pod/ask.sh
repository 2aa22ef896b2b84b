#!/bin/sh
# What a probe pod sees of the cluster, asked from inside it: NAME=ANSWER lines for lab/health/facts/probes.py.
# The words: its Service's address and node port, what policy.pl is asked (its words with `;` between them), then
# NAME,NODE-ADDRESS,POD-ADDRESS for every probe pod.
# All questions go side by side, each for some seconds at most. Runs in busybox.
set -u
service=$1 port=$2 policy=$3 seconds=$((3 * ${LAB_PATIENCE:-1}))
shift 3

say() { printf '%s=%s\n' "$1" "$2"; }

# The answer's last line, or what kept it from coming.
fetch() { fetch_within "$seconds" "$@"; }

fetch_within() { # SECONDS WORD…
	within=$1
	shift
	timeout "$within" wget -q -T "$within" -O - "$@" 2>&1 | tail -n 1
}

# A new Service reaches every node's kube-proxy a moment after its pods are Ready. A connection that began before that
# is lost, so the first tries are short ones (where machines are emulated, LAB_PATIENCE times as long).
through_service() { # QUESTION NODE URL
	for try in 1 1 1 3; do
		answer=$(fetch_within $((try * ${LAB_PATIENCE:-1})) "$3")
		[ "$answer" != "$2" ] || break
		sleep 0.3
	done
	say "$1" "${answer:-no answer}"
}

resolve() { # QUESTION NAME
	tries=0
	until answer=$(timeout "$seconds" nslookup -type=a "$2" 2>/dev/null | awk '/^Address/ { a = $NF } END { print a }') &&
		[ -n "$answer" ] || [ "$tries" -ge 2 ]; do
		tries=$((tries + 1))
	done
	say "$1" "$answer"
}

policies() {
	command -v perl >/dev/null || {
		say policy "no perl"
		return
	}
	# Names and addresses.
	# shellcheck disable=SC2046
	perl -e "$ASK_UNDER_POLICY" $(echo "$policy" | tr ';' ' ')
}

policies &
resolve dns kubernetes.default.svc.cluster.local. &
through_service service "$NODE" "http://$service:8080/node" &
for peer in "$@"; do
	name=${peer%%,*} pod=${peer##*,} address=${peer#*,}
	address=${address%,*}
	# Each way several packets as big as the network takes: 4000 bytes of header there, a longer page back.
	say "pod:$name" "$(fetch --header "X-Payload: $PAYLOAD" "http://$pod:8080/page")" &
	# A pod that asks its own node is answered by any: kube-proxy takes that for traffic inside the cluster.
	[ "$name" = "$NODE" ] || through_service "port:$name" "$name" "http://$address:$port/node" &
done
wait
