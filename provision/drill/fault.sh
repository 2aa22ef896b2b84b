#!/bin/bash
# One fault on one machine: `fault.sh FAULT inject|heal [WORD…]`, from standard input, as root. `heal`
# reverts the fault. Without a fault it changes nothing, so it is always safe to run.
set -euo pipefail

readonly MANIFESTS=/etc/kubernetes/manifests PARKED=/etc/kubernetes/parked-by-drill
readonly CHAIN=HA-LAB-DRILL WRITES=4

# The kubelet stops a static pod whose manifest is gone, and starts it when it is back (kubernetes.io,
# "Create static Pods").
api_server_stopped() {
	case $1 in
	inject) mkdir -p "$PARKED" && mv "$MANIFESTS/kube-apiserver.yaml" "$PARKED/" ;;
	heal) [[ ! -e $PARKED/kube-apiserver.yaml ]] || mv "$PARKED/kube-apiserver.yaml" "$MANIFESTS/" ;;
	esac
}

# The kernel still accepts connections for a frozen process: only a check that needs a response over TLS
# detects it.
api_server_frozen() {
	case $1 in
	inject) pkill -STOP -x kube-apiserver ;;
	heal) pkill -CONT -x kube-apiserver || true ;;
	esac
}

# The disk under etcd takes a few writes a second and no more, so that each fsync lasts half a second and
# longer. Kernel: admin-guide/cgroup-v1/blkio-controller, "Throttling/Upper limit policy"; cgroup-v2, "io.max".
etcd_disk_slowed() {
	local device group pid
	pid=$(pgrep -o -x etcd) || {
		[[ $1 == heal ]] && return
		echo "etcd does not run here" >&2
		exit 1
	}
	device=$(mountpoint -d /var/lib/etcd)
	# A partition is throttled as its whole disk.
	[[ ! -e /sys/dev/block/$device/partition ]] || device=$(<"/sys/dev/block/$device/../dev")
	[[ -e /sys/dev/block/$device ]] || {
		[[ $1 == heal ]] && return
		echo "the disk under etcd ($device) is none that a cgroup can slow" >&2
		exit 1
	}
	if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
		group=/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$pid/cgroup")
		echo "$device wiops=$([[ $1 == inject ]] && echo "$WRITES" || echo max)" >"$group/io.max"
	else
		group=/sys/fs/cgroup/blkio$(sed -n 's/^[0-9]*:blkio://p' "/proc/$pid/cgroup")
		echo "$device $([[ $1 == inject ]] && echo "$WRITES" || echo 0)" >"$group/blkio.throttle.write_iops_device"
	fi
}

# All packets to and from the given addresses are dropped, both ways.
partitioned() {
	local action=$1 way
	shift
	for way in INPUT OUTPUT FORWARD; do
		iptables -w -D "$way" -j "$CHAIN" 2>/dev/null || true
	done
	iptables -w -F "$CHAIN" 2>/dev/null || true
	iptables -w -X "$CHAIN" 2>/dev/null || true
	[[ $action == inject ]] || return 0
	iptables -w -N "$CHAIN"
	for address; do
		iptables -w -A "$CHAIN" -s "$address" -j DROP
		iptables -w -A "$CHAIN" -d "$address" -j DROP
	done
	for way in INPUT OUTPUT FORWARD; do
		iptables -w -I "$way" -j "$CHAIN"
	done
}

# Renews all certificates, then restarts the static pods, since each reads its certificate only when it starts
# (kubernetes.io, "Certificate Management with kubeadm"). The API server is stopped first and started last: without
# etcd it would answer with errors until the load balancer has detected that.
certificates_renewed() {
	local before pod
	if [[ $1 == inject ]]; then
		before=$(serial_numbers)
		kubeadm certs renew all >/dev/null
		[[ -z $(comm -12 <(sort <<<"$before") <(serial_numbers | sort)) ]] || {
			echo "a certificate has the serial number that it had before it was renewed" >&2
			exit 1
		}
		mkdir -p "$PARKED"
		for pod in kube-apiserver kube-scheduler kube-controller-manager etcd; do
			mv "$MANIFESTS/$pod.yaml" "$PARKED/"
			within 90 "$pod ends" not_running "$pod"
		done
	fi
	for pod in etcd kube-controller-manager kube-scheduler kube-apiserver; do
		[[ ! -e $PARKED/$pod.yaml ]] || mv "$PARKED/$pod.yaml" "$MANIFESTS/"
	done
	[[ $1 == heal ]] || within 180 "the API server here is ready again" answers
}

serial_numbers() {
	local file
	for file in /etc/kubernetes/pki/*.crt /etc/kubernetes/pki/etcd/*.crt; do
		[[ $file == *ca.crt ]] || echo "$file $(openssl x509 -noout -serial -in "$file")"
	done
}

not_running() { ! pgrep -x "${1:0:15}" >/dev/null; } # the kernel keeps 15 characters of a name

# What an API server says of itself when it is ready has etcd's answer in it. Its certificate names the node, not
# localhost.
answers() {
	curl --silent --fail --max-time 3 --cacert /etc/kubernetes/pki/ca.crt --output /dev/null \
		"https://$HOSTNAME:6443/readyz"
}

# within SECONDS WHAT COMMAND…: waits until the command succeeds.
within() {
	local seconds=$1 what=$2 deadline
	shift 2
	deadline=$((SECONDS + seconds))
	until "$@"; do
		((SECONDS < deadline)) || {
			echo "$what: not within $seconds s" >&2
			exit 1
		}
		sleep 0.3
	done
}

"$@"
