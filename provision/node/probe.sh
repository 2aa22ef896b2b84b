#!/bin/bash
# What this machine has of Kubernetes: `fresh` (nothing), `joined` (has once joined whole) or `partial`.
# Asks files only, so that it answers at once on a machine whose cluster is down.
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/kubernetes.sh
source "$HERE/kubernetes.sh"

if [[ $NODE_ROLE == load-balancer ]]; then
	echo joined
elif nothing_of_a_cluster; then
	echo fresh
elif kubelet_has_its_certificate && [[ ! -e /etc/kubernetes/bootstrap-kubelet.conf ]] &&
	[[ $NODE_ROLE == worker || (-e $ADMIN && -e $MANIFESTS/etcd.yaml && -d /var/lib/etcd/member) ]]; then
	echo joined
else
	echo partial
fi
