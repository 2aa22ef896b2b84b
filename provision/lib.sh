# shellcheck shell=bash
# shellcheck disable=SC2034  # what a sourced file sets, others use
# What every provisioning script stands on: strict mode, a stack on error, one waiter, one way to
# put a file in place. Sourced, never run. Reads node.env, which is the only input besides secrets.
set -Eeuo pipefail
umask 022

readonly SECRETS=/run/ha-lab/secrets # 0600, on tmpfs, gone when the script that needs it is done
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly HERE
changed=no # what `finish` reports

log() { echo "[$(date +%T)] $*"; }

die() {
	echo "ERROR: $*" >&2
	exit 1
}

on_error() {
	local code=$1 depth
	echo "ERROR: exit code $code in ${FUNCNAME[1]:-main}: $BASH_COMMAND" >&2
	for ((depth = 1; depth < ${#FUNCNAME[@]}; depth++)); do
		echo "    at ${BASH_SOURCE[depth]##*/}:${BASH_LINENO[depth - 1]} ${FUNCNAME[depth]}" >&2
	done
}
trap 'on_error $?' ERR

# One script at a time on a machine: a run whose host side died may still be at work here.
exclusively() {
	mkdir -p /run/ha-lab
	exec 9>/run/ha-lab/lock
	! flock --nonblock 9 || return 0
	log "waiting for an earlier provisioning script on this machine to end"
	flock --wait $((300 * LAB_PATIENCE)) 9 ||
		die "an earlier provisioning script is still running on this machine after $((300 * LAB_PATIENCE)) s"
}

# wait_for SECONDS WHAT FUNCTION [ARG…]: waits until FUNCTION succeeds; until then it prints why not and returns
# non-zero. Dies after SECONDS. WHAT continues "waiting for", which is printed after 5 s and then every 15 s, with the
# last line of the last reason, even while FUNCTION has not answered.
# Where machines are emulated, it waits longer and asks less often: kubectl alone takes a second of CPU there.
wait_for() {
	local seconds=$(($1 * LAB_PATIENCE)) what=$2 began=$SECONDS notice=FIRST_NOTICE reason=
	shift 2
	until answered "$@"; do
		((SECONDS - began < seconds)) ||
			die "gave up after $seconds s waiting for $what: ${reason:-no reason given}"
		sleep "$PAUSE"
	done
}

# One question of wait_for: calls FUNCTION, whose output becomes `reason`, and prints the notices that are due.
answered() {
	local output code remaining part words=""
	# As in a command substitution: no errexit, and no stack for a command that fails.
	exec {output}< <(
		set +e
		trap - ERR
		"$@" 2>&1
		printf '\0%s\0' "$?"
	)
	while true; do
		remaining=$((began + notice - SECONDS))
		code=0
		read -r -d '' -t "$((remaining > 0 ? remaining : 1))" -u "$output" part || code=$?
		words+=$part
		# Above 128: not all of it has come yet.
		((code > 128)) || break
		show_notice "${reason:-no answer yet}"
	done
	# Without a code FUNCTION has left with `exit`.
	read -r -d '' -u "$output" code || code=1
	exec {output}<&-
	reason=$(printf '%s' "$words") # without newlines at its end
	((code == 0)) || {
		show_notice "${reason:-no reason given}"
		return 1
	}
}

show_notice() {
	((SECONDS - began >= notice)) || return 0
	log "waiting for $what ($((SECONDS - began)) s): ${1##*$'\n'}"
	notice=$((SECONDS - began + 15))
}

# place MODE FILE: standard input becomes FILE whole or not at all; true when that changed anything.
place() {
	local mode=$1 file=$2 temporary
	mkdir -p "$(dirname "$file")"
	temporary=$(mktemp "$file.XXXXXX")
	cat >"$temporary"
	chmod "$mode" "$temporary"
	if cmp -s "$temporary" "$file"; then
		rm -f "$temporary"
		return 1
	fi
	mv "$temporary" "$file"
	changed=yes
}

# Files of HAProxy's that changed after it had last read any, at its start or a reload.
unread_by_haproxy() {
	local since
	since=$(systemctl show --property StateChangeTimestamp --timestamp=us+utc --value haproxy)
	find /etc/haproxy -type f -newermt "${since:-1970-01-01}"
}

# The last line tells the kit whether this run touched anything.
finish() { echo "ha-lab: $([[ $changed == yes ]] && echo changed || echo unchanged)"; }

# shellcheck source=/dev/null
[[ ! -e $HERE/node.env ]] || source "$HERE/node.env"
# By how much all times are longer; it is in node.env where machines are emulated.
readonly LAB_PATIENCE=${LAB_PATIENCE:-1}
if ((LAB_PATIENCE == 1)); then PAUSE=0.3; else PAUSE=5; fi # seconds between two questions
readonly PAUSE FIRST_NOTICE=5
