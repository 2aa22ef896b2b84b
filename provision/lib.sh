# shellcheck shell=bash
# shellcheck disable=SC2034  # what a sourced file sets, others use
# The base of every provisioning script: strict mode, a stack trace on error, one function to wait, one to
# install a file. Sourced, never run. Reads node.env, which is the only input besides secrets.
set -Eeuo pipefail
umask 022

readonly SECRETS=/run/ha-lab/secrets # 0600, on tmpfs, gone when the script that needs it is done
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly HERE
changed=no # what `finish` reports

log() { echo "[$(date +%T)] $*"; }

# repairs LINES: prints what was wrong and is repaired now. `up` shows that with its step (lab/plans/script.py).
repairs() {
	local line
	while IFS= read -r line; do log "repairs: $line"; done <<<"$1"
}

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

# One script at a time on a machine. The script that has the lock, and what it has started, have it open as 9; one that
# waits for it has it open as 8.
#
# After an `up` that was killed its script may still be running here, and may wait for what never comes, such as a join
# whose token is gone. $HA_LAB_RUN says which `up` a script belongs to, and one host runs one at a time on a lab, so a
# script of another one has lost its caller. It may complete what it does, which takes some seconds, and is ended then:
# what it leaves is what any interruption leaves. A script that was not started by `up` is waited for.
exclusively() {
	local what="an earlier script on this machine to end" began=$SECONDS notice=FIRST_NOTICE
	mkdir -p /run/ha-lab
	exec 8>/run/ha-lab/lock
	until flock --wait "$PAUSE" 8; do
		if ((SECONDS - began >= 300 * LAB_PATIENCE)); then
			die "an earlier provisioning script is still running on this machine after $((300 * LAB_PATIENCE)) s:" \
				"$(lock_holder), processes $(lock_holders | paste -sd ' ')"
		elif ((SECONDS - began >= ORPHAN_GRACE * LAB_PATIENCE)) && held_by_an_earlier_run; then
			end_lock_holders
		else
			show_notice "$(lock_holder) is running"
		fi
	done
	exec 9>&8 8>&-
	echo "${HA_LAB_RUN:--} ${0##*/}" >/run/ha-lab/lock-holder
}

held_by_an_earlier_run() {
	local run=-
	[[ -n ${HA_LAB_RUN:-} && -e /run/ha-lab/lock-holder ]] || return 1
	read -r run _ </run/ha-lab/lock-holder || return 1
	[[ $run != - && $run != "$HA_LAB_RUN" ]]
}

lock_holder() { cut -d' ' -f2 /run/ha-lab/lock-holder 2>/dev/null || echo "another script"; }

# A line for each process that has the lock: the script may have been killed while what it had started goes on.
lock_holders() {
	local file
	for file in /proc/[0-9]*/fd/9; do
		[[ ! $file -ef /run/ha-lab/lock ]] || cut -d/ -f3 <<<"$file"
	done
}

# Scripts remove their secrets, and end a drain, when they are ended with SIGTERM.
end_lock_holders() {
	local signal processes
	for signal in TERM KILL; do
		processes=$(lock_holders)
		log "ending $(lock_holder), which an earlier run left running here (SIG$signal)"
		# Numbers, a line each.
		# shellcheck disable=SC2086
		kill -s "$signal" $processes 2>/dev/null || true
		! flock --wait 15 8 || return 0
	done
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

# with_notices WHAT COMMAND…: runs COMMAND, and prints the notices of wait_for while it prints nothing itself, with the
# last line that it has printed and that is no warning, which is in `last_line` afterwards.
with_notices() {
	local what=$1 began=$SECONDS notice=FIRST_NOTICE pipe output running code part line=""
	shift
	last_line=""
	# Not <(…): on a busy host, `wait` of bash 5.2 sometimes returns 255 instead of the exit code of such a process.
	pipe=$(mktemp -u)
	mkfifo -m 600 "$pipe" || die "$pipe can't be created"
	(
		set +e
		trap - ERR
		"$@" 2>&1
	) <&0 >"$pipe" &
	running=$!
	exec {output}<"$pipe"
	rm "$pipe"
	while true; do
		code=0
		IFS= read -r -t "$FIRST_NOTICE" -u "$output" part || code=$?
		line+=$part
		if ((code > 128)); then
			# kubeadm's report on the kernel has colours.
			# shellcheck disable=SC2001  # bash has such a repetition only with extglob
			show_notice "$(sed 's/\x1b\[[0-9;]*m//g' <<<"${last_line:-it has printed nothing yet}")"
			continue
		fi
		[[ $code != 0 && -z $line ]] || printf '%s\n' "$line"
		# kubeadm warns of the same things in every run, and a line on stack traces follows each of its errors.
		[[ -z $line || $line == *"[WARNING "* || $line == "To see the stack trace"* ]] || last_line=$line
		((code == 0)) || break
		line=""
	done
	exec {output}<&-
	wait "$running"
}

# weigh_no_more_than_pods "$@": on an emulated machine, starts the script again with the CPU weight that all pods have
# together (the kubelet gives kubepods.slice 39 for one CPU). With the 100 of an ssh session, a script that asks much keeps
# the API server from the CPU for longer than HAProxy's check waits.
weigh_no_more_than_pods() {
	((LAB_PATIENCE > 1)) && [[ -z ${HA_LAB_WEIGHED:-} ]] || return 0
	export HA_LAB_WEIGHED=yes
	exec systemd-run --quiet --scope --slice=-.slice --property=CPUWeight=39 -- "$0" "$@"
}

# place MODE FILE: standard input becomes FILE whole or not at all; true when that changed anything.
place() {
	local mode=$1 file=$2 temporary
	mkdir -p "$(dirname "$file")"
	temporary=$(mktemp "$file.XXXXXX") || die "$file can't be written"
	# Said here, as callers ask whether anything changed, and bash ends at no error in a condition. A full disk must not
	# leave half a file.
	cat >"$temporary" || {
		rm -f "$temporary"
		die "$file can't be written"
	}
	chmod "$mode" "$temporary"
	if cmp -s "$temporary" "$file"; then
		rm -f "$temporary"
		return 1
	fi
	mv "$temporary" "$file"
	changed=yes
}

# The last line reports to the kit whether this run changed anything.
finish() { echo "ha-lab: $([[ $changed == yes ]] && echo changed || echo unchanged)"; }

# shellcheck source=/dev/null
[[ ! -e $HERE/node.env ]] || source "$HERE/node.env"
# By how much all times are longer; it is in node.env where machines are emulated.
readonly LAB_PATIENCE=${LAB_PATIENCE:-1}
if ((LAB_PATIENCE == 1)); then PAUSE=0.3; else PAUSE=5; fi # seconds between two questions
readonly PAUSE FIRST_NOTICE=5 ORPHAN_GRACE=20
