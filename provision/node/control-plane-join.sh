#!/bin/bash
# One more control plane. Joins go one at a time: etcd takes one learner at once (etcd learner design,
# and CAPI, kind and kubespray all serialise). The gate below makes that true for a bare `vagrant up`,
# too, where machines are provisioned side by side. Words: `--ordered` when the caller sees to the order,
# `--former` when etcd may still have a member from a machine of this name that is gone.
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/kubernetes.sh
source "$HERE/kubernetes.sh"

readonly ATTEMPTS=3 FIRST_CERTIFICATE=/var/lib/kubelet/pki/kubelet-client-current.pem
# Seconds: two more than the kubelet asks for, as ps rounds down and containerd counts from a bit later.
readonly STATIC_PODS=etcd,kube-apiserver,kube-controller-manager,kube-scheduler SETTLED=12

# Prints what this machine still lacks of being a whole control plane.
not_joined() {
	local member
	own_api_server || return 1
	labelled_control_plane || return 1
	member=$(own_member) || {
		echo "etcd does not answer"
		return 1
	}
	[[ $member == *" false" ]] || {
		echo "etcd has no voting member here (found: '${member:-none}')"
		return 1
	}
}

# The control plane before this one has its label, so its etcd member votes and the next may come.
# Bootstrap tokens may read nodes (kubeadm's role kubeadm:get-nodes).
previous_not_joined() {
	local labels
	labels=$(kubectl --kubeconfig /run/ha-lab/token.conf --request-timeout "$((5 * LAB_PATIENCE))s" \
		get node "$PREVIOUS_CONTROL_PLANE" --output "jsonpath={.metadata.labels}") || return 1
	[[ $labels == *node-role.kubernetes.io/control-plane* ]] || {
		echo "$PREVIOUS_CONTROL_PLANE has not joined yet"
		return 1
	}
}

token_kubeconfig() {
	fill "$HERE/token.conf"
	mv "$FILLED" /run/ha-lab/token.conf
}

join_once() {
	local nudge code=0
	fill "$HERE/kubeadm-join.yaml"
	rm -f "$FIRST_CERTIFICATE"
	nudge_kubelet 9>&- & # without the lock, should it outlive this script
	nudge=$!
	kubeadm join --config "$FILLED" "$(preflight)" || code=$?
	kill "$nudge" 2>/dev/null || true
	wait "$nudge" 2>/dev/null || true
	((code == 0)) || return 1
	changed=yes
}

# A control plane's kubelet asks its own API server for its certificate (kubeadm's
# ControlPlaneKubeletLocalMode, fixed since 1.36), with pauses of 2, 4, 8 and 16 s. That server answers only
# when the new etcd member votes, often just after a try has failed. Started anew then, the kubelet asks at
# once; pods that run go on.
nudge_kubelet() {
	local before=$SECONDS
	until [[ -e $FIRST_CERTIFICATE ]]; do
		if own_api_server >/dev/null 2>&1 && static_pods_settled; then
			[[ -e $FIRST_CERTIFICATE ]] || systemctl restart kubelet
			return
		fi
		((SECONDS - before < 300 * LAB_PATIENCE)) || return 0
		sleep 0.5
	done
}

# A kubelet takes a container that is not ten seconds older than itself for a new one
# (kubeletRestartGracePeriod, pkg/kubelet/prober). Started sooner it would call the static pods Ready at once,
# which ends `up`, and some seconds later not Ready, until their startup probe's next turn has come.
static_pods_settled() {
	local ages
	ages=$(ps -o etimes= -C "$STATIC_PODS") || return 1
	((SETTLED <= $(sort -n <<<"$ages" | head -n 1)))
}

# A member of our name from a machine that is gone keeps its vote until somebody removes it, and a new
# machine must not be counted twice.
forget_former_self() {
	local member
	kubeadm join phase control-plane-prepare download-certs --config "$FILLED" >/dev/null
	kubeadm join phase control-plane-prepare certs --config "$FILLED" >/dev/null
	member=$(own_member | cut -d' ' -f1)
	[[ -z $member ]] || {
		log "etcd still has a member for $NODE_NAME: removing $member"
		etcd member remove "$member"
	}
}

join() {
	local attempt
	wait_for 600 "the API through the load balancer" api_through_load_balancer
	token_kubeconfig
	[[ $* == *--ordered* ]] || wait_for 900 "the control plane before this one" previous_not_joined
	for ((attempt = 1; attempt <= ATTEMPTS; attempt++)); do
		if [[ $attempt -gt 1 || $* == *--former* ]]; then
			fill "$HERE/kubeadm-join.yaml"
			forget_former_self || log "could not ask etcd about a former member"
		fi
		join_once && return
		log "attempt $attempt of $ATTEMPTS to join failed"
		undo
	done
	die "kubeadm join failed $ATTEMPTS times (its own words are above)"
}

main() {
	local patience=60
	exclusively
	trap 'forget_secrets; forget_by_hand' EXIT
	[[ ${1:-} != --stdin ]] || { take_secrets && shift; }
	if [[ -e $KUBELET || -e $MANIFESTS/kube-apiserver.yaml ]]; then
		start_kubelet
		wait_for 180 "the API through the load balancer, which a machine that has joined needs," \
			api_through_load_balancer
		# One that was whole once comes back slowly after a reboot of all; half a join never does.
		[[ -e /etc/kubernetes/bootstrap-kubelet.conf || ! -d /var/lib/etcd/member ]] || patience=300
		if ! (wait_for "$patience" "the earlier join" not_joined); then
			undo
			join "$@" --former
		fi
		heard_of_since_boot
	else
		join "$@"
	fi
	finish
}

main "$@"
