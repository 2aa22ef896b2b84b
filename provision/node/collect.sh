#!/bin/bash
# What a bug report needs from this machine, as a tar on standard output. Never a key, token or
# kubeconfig: names are listed instead of copied, and the host looks through the texts once more.
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"

main() {
	local folder
	folder=$(mktemp -d)
	{
		systemctl --no-pager --failed
		systemctl --no-pager status haproxy containerd kubelet ha-lab-network ha-lab-dns 2>&1
	} >"$folder/services.txt" || true
	journalctl --no-pager --lines 3000 >"$folder/journal.txt" 2>&1 || true
	{ ip address && ip route && cat /etc/hosts; } >"$folder/network.txt" 2>&1 || true
	{ uname -a && cat /proc/meminfo && df -h && mount; } >"$folder/machine.txt" 2>&1 || true
	ls -lR /etc/kubernetes >"$folder/kubernetes-files.txt" 2>&1 || true
	cp /etc/haproxy/haproxy.cfg "$folder/" 2>/dev/null || true
	cp -r /etc/kubernetes/manifests "$folder/" 2>/dev/null || true
	[[ ! -d /var/log/pods ]] || find /var/log/pods -name '*.log' -size -2M -printf '%P\0' |
		tar -C /var/log/pods --null --files-from - -cf "$folder/pods.tar" 2>/dev/null || true
	if [[ -e /etc/kubernetes/admin.conf ]]; then
		kubectl --kubeconfig /etc/kubernetes/admin.conf --request-timeout 10s get nodes,pods,events \
			--all-namespaces --output wide >"$folder/cluster.txt" 2>&1 || true
	fi
	if [[ -S /run/haproxy/admin.sock ]]; then
		echo 'show stat' | socat -t 5 - UNIX-CONNECT:/run/haproxy/admin.sock >"$folder/haproxy-stat.csv" 2>&1 || true
		[[ -s $folder/haproxy-stat.csv ]] || echo "HAProxy gave no answer within 5 s" >"$folder/haproxy-stat.csv"
	fi
	tar -C "$folder" -cf - .
	rm -rf "$folder"
}

main
