# shellcheck shell=bash
# Whether API servers answer, why not, and when it is of no use to wait for this machine's own one.
# Sourced by kubernetes.sh.

# Seconds for which a container that ends is waited for: it may have needed what was not there yet.
readonly CRASH_GRACE=$((45 * LAB_PATIENCE))

# healthy URL: prints why not when it isn't.
healthy() {
	local said code=0 seconds=$((3 * LAB_PATIENCE))
	said=$(curl --silent --show-error --max-time "$seconds" --fail --cacert "$HERE/ca.crt" --output /dev/null "$1" 2>&1) ||
		code=$?
	((code != 0)) || return 0
	if ((code == 22)); then
		said=${said##*: }
		echo "$1 answers with the HTTP status ${said:0:3}"
	else
		echo "$1 can't be asked: $(connection_problem "$code" "$said" "$1" "$seconds")"
	fi
	return 1
}

api_ready() { healthy "https://$API_ENDPOINT/readyz"; }
readonly OWN_API=https://$NODE_ADDRESS:6443
own_api_server_ready() { healthy "$OWN_API/readyz"; }

api_server_closed() {
	local listening
	listening=$(ss --no-header --listening --tcp --numeric "sport = :6443") || return 1
	[[ -z $listening ]] || {
		echo "it still takes connections"
		return 1
	}
}

# After end_api_server, also in a run that was interrupted.
restore_api_server() {
	[[ -e $API_SERVER_ASIDE ]] || return 0
	mv "$API_SERVER_ASIDE" "$MANIFESTS/kube-apiserver.yaml"
	# shellcheck disable=SC2034  # for `finish`
	changed=yes
}

# Ends this machine's API server. After SIGTERM it accepts no more connections and completes open requests (Kubernetes,
# "API server shutdown"); SIGKILL would cut them off. Its manifest is moved aside, and restore_api_server puts it back.
end_api_server() {
	if [[ -e $MANIFESTS/kube-apiserver.yaml ]]; then
		mv "$MANIFESTS/kube-apiserver.yaml" "$API_SERVER_ASIDE"
		# shellcheck disable=SC2034  # for `finish`
		changed=yes
	fi
	wait_for 60 "this API server to take no more connections" api_server_closed
}

# connection_problem CODE WORDS URL SECONDS: what curl's exit code and words mean, in the words of
# lab/health/connecting.py. With `mode tcp`, HAProxy accepts a connection and ends it where no API server is up.
connection_problem() {
	local cut="the connection was cut before an answer" words=${2%%$'\n'*}
	words=${words#curl: (*) }
	[[ $3 != "https://$API_ENDPOINT/"* ]] || cut+=": HAProxy has no API server that is up"
	case $1,$words in
	7,*) echo "nothing listens there" ;;
	28,*) echo "no answer within $4 s" ;;
	# OpenSSL's words for the end of a connection, and GnuTLS's.
	35,*SSL_ERROR_SYSCALL* | 35,*"eset by peer"* | 35,*"Broken pipe"* | 35,*"unexpected eof"* | 35,*terminated* | 52,* | 55,* | 56,*) echo "$cut" ;;
	35,*) echo "what answers there does not complete a TLS handshake (${words##*:})" ;;
	60,*) echo "its certificate is not accepted (${words#SSL certificate problem: })" ;;
	*) echo "${words:-curl ends with exit code $1}" ;;
	esac
}

# newest_log NAME: puts the log of the container NAME that was started last into `newest`, or nothing. The kubelet names
# it after the number of earlier starts (pkg/kubelet/kuberuntime, kuberuntime_container.go).
newest_log() {
	local log
	newest=
	for log in /var/log/pods/kube-system_"$1"-*/"$1"/*.log; do
		[[ ! -e $log ]] || [[ -n $newest && ! $log -nt $newest ]] || newest=$log
	done
}

# Puts the number of starts of a container's newest log into `starts`.
starts_of() {
	local newest
	newest_log "$1"
	starts=${newest##*/}
	starts=${starts%.log}
	starts=${starts:-0}
}

# Called when a wait for this machine's API server begins; crash_problem compares with it.
watch_containers() {
	local starts
	watched_since=$SECONDS
	starts_of etcd
	etcd_starts=$starts
	starts_of kube-apiserver
	api_server_starts=$starts
}

# Prints which of this machine's containers ends again and again, and the last line of its log, or nothing.
crash_problem() {
	((SECONDS - watched_since >= CRASH_GRACE)) || return 0
	if ends_again etcd "$etcd_starts"; then
		crash etcd
	elif ends_again kube-apiserver "$api_server_starts" && ! api_server_lacks_etcd; then
		crash kube-apiserver
	fi
}

crash() {
	local newest line
	newest_log "$1"
	# Before it are the time, the stream and F or P (CRI logging format).
	line=$(grep -v '^[^ ]* [^ ]* [FP] *$' "$newest" | tail -n 1 | cut -d' ' -f4-)
	echo "$1 on $NODE_NAME ends again and again; the last line of its log: ${line:-its log is empty}"
}

# ends_again NAME STARTS: its container does not run, as it may yet be well while it does, and it ended at least twice
# since it had this number of starts; or the kubelet, which has tried before, pauses for longer than CRASH_GRACE before it
# tries again.
ends_again() {
	local newest starts kubelet_since ended
	newest_log "$1"
	[[ -n $newest ]] || return 1
	! pgrep -x "$1" >/dev/null || return 1
	starts_of "$1"
	((starts < $2 + 2)) || return 0
	kubelet_since=$(systemctl show --property ActiveEnterTimestamp --timestamp=unix --value kubelet)
	kubelet_since=${kubelet_since#@}
	ended=$(stat --format %Y "$newest")
	[[ -n $kubelet_since ]] && ((kubelet_since < ended && EPOCHSECONDS - ended >= CRASH_GRACE))
}

# It ends where it can't reach its machine's etcd, and that may yet get its majority: others may have booted later. The
# newest log may be of a start that has not come so far.
api_server_lacks_etcd() {
	local newest number before
	newest_log kube-apiserver
	number=${newest##*/}
	before=${newest%/*}/$((${number%.log} - 1)).log
	{ tail -q -n 20 "$newest" "$before" 2>/dev/null || true; } | grep -q ':2379\|error creating storage factory'
}
