#!/bin/bash
# Runs a command where the network is loopback and nothing else, with a docker daemon of its own that has
# no image yet. Everything it starts ends with it. Needs root.
#
#   without-network.sh FOLDER COMMAND…      FOLDER gets the daemon's data and its log
set -euo pipefail

if [[ $1 != --inside ]]; then
	exec unshare --net --mount --pid --fork --kill-child --mount-proc "$0" --inside "$@"
fi
folder=$2
shift 2

ip link set lo up
mount -t tmpfs tmpfs /run # the daemon's socket is where clients look for it, and only here
mkdir -p "$folder/docker"
dockerd --data-root "$folder/docker" >"$folder/dockerd.log" 2>&1 &
daemon=$!
for _ in $(seq 300); do
	docker version >/dev/null 2>&1 && break
	kill -0 "$daemon" || {
		cat "$folder/dockerd.log" >&2
		exit 1
	}
	sleep 0.1
done

ended=0
"$@" || ended=$?
docker ps --all --quiet | xargs --no-run-if-empty docker rm --force --volumes >/dev/null
kill "$daemon"
wait "$daemon" || true
exit "$ended"
