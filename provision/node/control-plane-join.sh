#!/bin/bash
# Joins one more control plane. Where each brings a member of etcd, they join one at a time, because etcd has at most one
# learner by default (etcd learner design; CAPI, kind and kubespray join them in turn, too).
#
#   control-plane-join.sh [--stdin] [--ordered] [--former]
#
# --ordered  the caller joins them in that order. Without it the script waits for the control plane before this one,
#            since a bare `vagrant up` provisions machines in parallel.
# --former   etcd may still have a member from a lost machine of this name.
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/kubernetes.sh
source "$HERE/kubernetes.sh"
# shellcheck source=provision/node-files.sh
source "$HERE/node-files.sh"

readonly ATTEMPTS=3
# Seconds: two more than the kubelet requires, since ps rounds down and containerd starts to count a bit later.
readonly STATIC_PODS=etcd,kube-apiserver,kube-controller-manager,kube-scheduler SETTLED=12

# Prints what a complete control plane has and this machine does not have yet.
joined() { serves && marked_control_plane; }

serves() {
	local member
	own_api_server_ready || return 1
	runs_etcd || return 0
	member=$(own_member) || {
		echo "etcd does not respond"
		return 1
	}
	[[ $member == *" false" ]] || {
		echo "etcd has no voting member here (found: '${member:-none}')"
		return 1
	}
}

# No wait brings back a member that was removed, or an API server that ends again and again.
joined_or_lost() { joined || removed_from_etcd || [[ -n $(crash_problem) ]]; }

# The control plane before this one has its label, so its etcd member votes and the next one may join.
# Bootstrap tokens may read nodes (kubeadm's role kubeadm:get-nodes).
previous_joined() {
	local labels
	labels=$(as_token get node "$PREVIOUS_CONTROL_PLANE" --output "jsonpath={.metadata.labels}") || return 1
	[[ $labels == *node-role.kubernetes.io/control-plane* ]] || {
		echo "$PREVIOUS_CONTROL_PLANE has not joined yet"
		return 1
	}
}

join_once() {
	local nudge code=0
	fill "$HERE/kubeadm-join.yaml"
	rm -f "$KUBELET_CERTIFICATE"
	nudge_kubelet 9>&- & # without the lock, in case it outlives this script
	nudge=$!
	with_notices "kubeadm join" kubeadm join --config "$FILLED" "$(preflight)" || code=$?
	kill "$nudge" 2>/dev/null || true
	wait "$nudge" 2>/dev/null || true
	((code == 0)) || return 1
	changed=yes
}

# A control plane's kubelet asks its own API server for its certificate (kubeadm's
# ControlPlaneKubeletLocalMode, fixed since 1.36), with pauses of 2, 4, 8 and 16 s. That server answers only
# when the new etcd member votes, often just after an attempt has failed. The kubelet asks at once when it is restarted
# then; running pods go on.
nudge_kubelet() {
	local before=$SECONDS
	until [[ -e $KUBELET_CERTIFICATE ]]; do
		if own_api_server_ready >/dev/null 2>&1 && static_pods_settled; then
			[[ -e $KUBELET_CERTIFICATE ]] || systemctl restart kubelet
			return
		fi
		((SECONDS - before < 300 * LAB_PATIENCE)) || return 0
		sleep 0.5
	done
}

# A kubelet treats a container that is less than ten seconds older than itself as new (kubeletRestartGracePeriod,
# pkg/kubelet/prober). Restarted sooner, it would report the static pods as Ready at once, which ends `up`, and some
# seconds later as not Ready, until their startup probe has succeeded.
static_pods_settled() {
	local ages
	ages=$(ps -o etimes= -C "$STATIC_PODS") || return 1
	((SETTLED <= $(sort -n <<<"$ages" | head -n 1)))
}

# A lost machine's member keeps its vote until it is removed, and this machine must not count twice.
remove_former_member() {
	local member
	runs_etcd || return 0
	kubeadm join phase control-plane-prepare download-certs --config "$FILLED" >/dev/null
	kubeadm join phase control-plane-prepare certs --config "$FILLED" >/dev/null
	member=$(own_member | cut -d' ' -f1)
	[[ -z $member ]] || {
		log "removing the etcd member $member, which an earlier machine $NODE_NAME left behind"
		etcd member remove "$member"
	}
}

join() {
	local attempt
	wait_for 600 "the API through the load balancer" api_ready
	token_kubeconfig
	[[ $* == *--ordered* ]] || ! runs_etcd || wait_for 900 "$PREVIOUS_CONTROL_PLANE to join first" previous_joined
	wait_for 120 "the API to accept this run's bootstrap token" token_is_accepted
	for ((attempt = 1; attempt <= ATTEMPTS; attempt++)); do
		if [[ $attempt -gt 1 || $* == *--former* ]]; then
			fill "$HERE/kubeadm-join.yaml"
			remove_former_member || log "could not ask etcd for a member of an earlier machine $NODE_NAME"
		fi
		join_once && return
		log "attempt $attempt of $ATTEMPTS to join failed"
		reset_node
	done
	die "kubeadm join failed $ATTEMPTS times (kubeadm's own messages are above)"
}

# complete_join HAS LOST [WORD…]: waits for an earlier join, or undoes it and joins again.
complete_join() {
	local seconds=60 has=$1 lost=$2
	shift 2
	watch_containers
	# The label and the taint are the last that a join sets.
	if lacks_marks && serves >/dev/null 2>&1; then mark_control_plane; fi
	# After a reboot of all machines a complete control plane recovers slowly. Half a join never recovers.
	[[ $has == partial ]] || lacks_marks || seconds=300
	if [[ -n $lost ]] || ! (wait_for "$seconds" "the earlier join to be complete" joined_or_lost && crash_problem) ||
		! joined >/dev/null 2>&1; then
		! removed_from_etcd || log "etcd's other members have removed $NODE_NAME's member, so it has to join again"
		require_join_possible
		reset_node
		join "$@" --former
	fi
}

main() {
	local has lost=""
	exclusively
	trap 'remove_secrets; remove_manual_files' EXIT
	[[ ${1:-} != --stdin ]] || { read_secrets && shift && require_load_balancer; }
	remove_bootstrap_kubeconfig
	if [[ -e $KUBELET || -e $MANIFESTS/kube-apiserver.yaml ]]; then
		has=$(membership)
		if [[ $has == damaged ]]; then
			repair_control_plane
		elif [[ $has == partial ]]; then
			lost=$(lost_files)
			[[ -z $lost ]] || {
				log "$NODE_NAME has to join again:"
				repairs "$lost"
			}
		fi
		point_at_load_balancer "$ADMIN" || true
		start_kubelet
		wait_for 180 "the API through the load balancer" api_ready
		if [[ -n $lost ]] || ! joined >/dev/null 2>&1; then complete_join "$has" "$lost" "$@"; fi
		wait_until_api_has_heard
	else
		join "$@"
	fi
	metrics_reachable
	note_complete
	finish
}

main "$@"
