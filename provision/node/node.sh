#!/bin/bash
# Every Kubernetes node, before kubeadm: its names and routes, its resolver for pods, and what only
# this machine can tell the kubelet.
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"

names_and_routes() {
	place 644 /etc/ha-lab/network.env <"$HERE/network.env" && restart=yes
	place 644 /etc/ha-lab/hosts <"$HERE/hosts" && restart=yes
	if [[ ${restart:-no} == yes ]] || ! systemctl is-active --quiet ha-lab-network; then
		systemctl restart ha-lab-network
		systemctl restart ha-lab-dns
	fi
}

# kubelet's drop-in configuration (kubernetes.io, "Kubelet Configuration Directory Merging").
kubelet_drop_in() {
	echo "nameserver $NODE_ADDRESS" | place 644 /etc/ha-lab/resolv.conf || true
	{
		echo "apiVersion: kubelet.config.k8s.io/v1beta1"
		echo "kind: KubeletConfiguration"
		echo "resolvConf: /etc/ha-lab/resolv.conf"
		# Kubernetes 1.35 and later refuse a cgroup v1 host unless told otherwise; only there.
		[[ -e /sys/fs/cgroup/cgroup.controllers ]] || echo "failCgroupV1: false"
	} | place 644 /etc/kubernetes/kubelet.conf.d/10-node.conf || true
}

container_runtime() {
	systemctl is-enabled --quiet containerd || systemctl enable --quiet containerd
	systemctl is-active --quiet containerd || {
		systemctl start containerd
		changed=yes
	}
}

main() {
	exclusively
	names_and_routes
	kubelet_drop_in
	container_runtime
	finish
}

main
