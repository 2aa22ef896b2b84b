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
	flock --wait $((300 * LAB_PATIENCE)) 9 ||
		die "an earlier provisioning script is still running on this machine after $((300 * LAB_PATIENCE)) s"
}

# wait_for SECONDS WHAT FUNCTION [ARG…]: FUNCTION prints why not yet and returns non-zero until it holds.
# Where machines are emulated, it waits longer, and asks less often: kubectl alone takes a second of CPU there.
wait_for() {
	local seconds=$(($1 * LAB_PATIENCE)) what=$2 deadline reason
	shift 2
	deadline=$((SECONDS + seconds))
	until reason=$("$@" 2>&1); do
		((SECONDS < deadline)) || die "$what: not after $seconds s: ${reason:-no reason given}"
		sleep "$PAUSE"
	done
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
readonly PAUSE
