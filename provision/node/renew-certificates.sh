#!/bin/bash
# Renews the certificates of this control plane, or of this etcd machine, where one of them is not valid now, or not for DAYS more days, and restarts its
# static pods, which read their certificates when they start (kubernetes.io, "Certificate Management with kubeadm").
# If an earlier run was interrupted between the two, the pods are older than their files, and are only restarted.
#
#   renew-certificates.sh [--stdin] [--list | --files] DAYS
#
# --list   only prints what is due: `WHY: WHAT`, a line each
# --files  restarts nothing. etcd and the API server reload most of their certificates by themselves, so if all have
#          expired, etcd has a majority again once this was done on most machines.
#
# The caller makes sure that etcd has a majority without this machine's member. The kubelet renews its own certificates.
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/kubernetes.sh
source "$HERE/kubernetes.sh"
# shellcheck source=provision/node-files.sh
source "$HERE/node-files.sh"

days=""

certificates_to_renew() {
	local name text value
	for name in "${SIGNED[@]}"; do
		[[ -s $PKI/$name.crt ]] || continue
		read_text "$PKI/$name.crt" || true
		renewal "$name" "$text"
	done
	for name in "${CONTROL_PLANE_KUBECONFIGS[@]}" super-admin; do
		[[ -s /etc/kubernetes/$name.conf ]] || continue
		read_text "/etc/kubernetes/$name.conf" || true
		value_of client-certificate-data
		renewal "$name.conf" "$(base64 -d 2>/dev/null <<<"$value")"
	done
}

# renewal NAME TEXT: `WHY: NAME` where the certificate in TEXT has to be renewed.
renewal() {
	local begins ends TZ=UTC
	certificate_dates "$2" || return 0 # it is broken; another step creates it again
	if ((begins > EPOCHSECONDS)); then
		printf 'valid from %(%F)T on: %s\n' "$begins" "$1"
	elif ((ends - EPOCHSECONDS < days * 86400)); then
		printf 'valid until %(%F)T: %s\n' "$ends" "$1"
	fi
}

pods_to_restart() {
	local name started file written wrong=unknown
	for name in "${COMPONENTS[@]}"; do
		started=$(started_at "$name")
		[[ -n $started ]] || continue # it does not run; it will read the present files when it starts
		while read -r file; do
			written=$(stat --format %Y "$file" 2>/dev/null) || continue
			# A date in the future proves nothing: the clock was ahead.
			((started < written && written <= EPOCHSECONDS)) || continue
			[[ $wrong != unknown ]] || wrong=$(unfit_to_serve)
			! would_fail "$name" || break
			echo "started before its certificates were written: $name"
			break
		done < <(read_at_start "$name")
	done
}

# Whether a static pod would not come back, by the pairs in `wrong`: an API server whose file does not match its key serves
# what it has read before. With etcd the API server is restarted, too.
would_fail() {
	[[ $1 == kube-apiserver && $'\n'$wrong$'\n' == *$'\n'apiserver$'\n'* || $1 == etcd && -n $wrong ]]
}

# The files with certificates that a static pod reads when it starts; it reloads some of them later.
read_at_start() {
	local kubernetes=/etc/kubernetes
	case $1 in
	etcd) printf '%s\n' $PKI/etcd/{ca,server,peer}.crt ;;
	kube-apiserver)
		printf '%s\n' $PKI/{ca,front-proxy-ca,etcd/ca}.crt \
			$PKI/{apiserver,apiserver-kubelet-client,apiserver-etcd-client,front-proxy-client}.crt
		;;
	kube-controller-manager | kube-scheduler) printf '%s\n' "$kubernetes/${1#kube-}.conf" $PKI/{ca,front-proxy-ca}.crt ;;
	esac
}

# process_of NAME: the number of a static pod's process, or nothing. The kernel keeps 15 characters of a name.
process_of() { pgrep -o -x "${1:0:15}" || true; }

# started_at NAME: when a static pod's process was started, in seconds since 1970, or nothing.
started_at() {
	local process elapsed
	process=$(process_of "$1")
	[[ -n $process ]] && elapsed=$(ps -o etimes= -p "$process") || return 0
	echo $((EPOCHSECONDS - elapsed))
}

# is_another NAME PROCESS: a process of this name runs, and it is not that one.
is_another() {
	local process
	process=$(process_of "$1")
	[[ -z $process || $process == "$2" ]] || return 0
	echo "the kubelet has not started it"
	return 1
}

api_server_ended() {
	[[ -z $(process_of kube-apiserver) ]] || {
		echo "it still completes open requests"
		return 1
	}
}

# restart NAME…: ends static pods' processes, which the kubelet then starts again. An API server without its etcd returns
# errors until the load balancer has detected that, so it ends first and starts last.
restart() {
	local name process processes=() api_server=no
	# The kubelet's back-off for a static pod grows with each restart, up to five minutes. Restarting the kubelet resets it.
	[[ $NODE_ROLE == etcd ]] || ! own_api_server_ready >/dev/null 2>&1 || restart_kubelet
	[[ $NODE_ROLE == etcd || " $* " != *" etcd "* && " $* " != *" kube-apiserver "* ]] || api_server=yes
	if [[ $api_server == yes ]]; then
		end_api_server
		wait_for 90 "this API server to end" api_server_ended
	fi
	for name; do
		[[ $name != kube-apiserver ]] || continue
		process=$(process_of "$name")
		pkill -TERM -o -x "${name:0:15}" || true # it may just have ended
		processes+=("$name $process")
	done
	for name in "${processes[@]}"; do
		wait_for 120 "${name% *} to start again" is_another "${name% *}" "${name#* }"
	done
	if [[ $api_server == yes ]]; then
		restore_api_server
		wait_for 180 "this API server to be ready" own_api_server_ready
	fi
	[[ $NODE_ROLE != etcd ]] || wait_for 120 "etcd of this machine" own_etcd_healthy
	changed=yes
}

own_etcd_healthy() { etcd_at https://127.0.0.1:2379 endpoint health --write-out simple 2>&1; }

renew() {
	local found
	found=$(certificates_to_renew)
	if [[ -n $found ]]; then
		log "renewing all certificates, since these have to be:"
		echo "$found"
		[[ $NODE_ROLE == etcd ]] || renew_all_certificates
		renew_for_etcd "$found"
		changed=yes
	fi
}

# renew_for_etcd FOUND: kubeadm does not renew what an etcd with machines of its own has signed (phases/certs/renewal,
# manager.go), so that is made again, where it has to be.
renew_for_etcd() {
	local name
	[[ $NODE_ROLE == etcd ]] || ! runs_etcd || return 0
	for name in "${SIGNED_FOR_ETCD[@]}"; do
		[[ $'\n'$1$'\n' != *": $name"$'\n'* ]] || sign_for_etcd "$name"
	done
}

restart_pods() {
	local found
	found=$(pods_to_restart)
	[[ -n $found ]] || return 0
	start_kubelet
	# Names, a line each.
	# shellcheck disable=SC2046
	restart $(cut -d: -f2 <<<"$found")
}

main() {
	local only="" secrets=no
	[[ ${1:-} != --stdin ]] || { secrets=yes && shift; }
	[[ ${1:-} != --* ]] || { only=${1#--} && shift; }
	days=${1:-}
	[[ $days =~ ^[0-9]+$ && $only =~ ^(|list|files)$ ]] || die "usage: renew-certificates.sh [--list | --files] DAYS"
	if [[ $only == list ]]; then
		certificates_to_renew
		pods_to_restart
		return
	fi
	exclusively
	[[ $secrets == no ]] || {
		trap remove_secrets EXIT
		read_secrets
	}
	restore_api_server
	renew
	[[ $only == files ]] || restart_pods
	finish
}

main "$@"
