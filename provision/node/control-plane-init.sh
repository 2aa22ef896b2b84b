#!/bin/bash
# The first control plane: kubeadm init through the load balancer. Where init was done before, this run's token and
# certificate key become valid for the machines that will join.
#
#   control-plane-init.sh [--stdin] [--alone] [--by-hand] [NAME…]
#
# --alone    no other machine belongs to a cluster. Only then is an incomplete init reset and repeated: resetting the
#            first of three control planes would lose an etcd member.
# --by-hand  you will join the machines manually, so this run's secrets are written to a file in /root.
# NAME…      machines that will join and have no cluster files yet.
#
# What init had made and is missing, or broken, is made again: files of this machine, objects of the cluster, the label
# and the taint of its Node. kube-proxy is pointed at the load balancer. Nodes that an interrupted removal has left cordoned accept pods again, and CoreDNS's replicas
# are spread as the number of nodes allows.
#
# Guard: init is complete, including its last phases. This machine's API server is asked, so it does not matter who
# ran init.
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/kubernetes.sh
source "$HERE/kubernetes.sh"
# shellcheck source=provision/node-files.sh
source "$HERE/node-files.sh"
# shellcheck source=provision/cluster-objects.sh
source "$HERE/cluster-objects.sh"

readonly COREDNS_PATCH=$HERE/patches/corednsdeployment+strategic.yaml

objects_present() {
	local found missing others
	found=$(ask_cluster) || {
		echo "the API can't be asked for the objects of kubeadm init: $found"
		return 1
	}
	missing=$(missing_objects "$found")
	[[ -z $missing ]] || {
		others=$(($(wc -l <<<"$missing") - 1))
		echo "missing: $(head -n 1 <<<"$missing" | cut -d' ' -f2-)$([[ $others == 0 ]] || echo ", and $others more objects")"
		return 1
	}
}

# Prints what kubeadm init has not done yet. The addons and the label are its last phases.
initialised() { own_api_server_ready && objects_present && marked_control_plane; }

# After a manual init $ONCE_COMPLETE is missing, but the kubelet has its certificate.
may_be_in_use() { [[ -e $ONCE_COMPLETE ]] || kubelet_has_its_certificate; }

# An earlier kubeadm init was interrupted, so that this control plane was never in use.
init_was_interrupted() {
	! may_be_in_use && ! (wait_for 60 "the earlier kubeadm init to be complete" initialised)
}

init() {
	wait_for 60 "the container runtime" systemctl is-active containerd
	fill "$HERE/kubeadm-init.yaml"
	install_lab_ca
	runs_etcd || {
		install_etcd_client
		# A bare `vagrant up` may still be making it.
		wait_for 600 "etcd, which runs on other machines" etcd member list --write-out simple
	}
	if ((LAB_PATIENCE == 1)); then
		kubeadm_init
	else
		kubeadm_init || complete_slow_init
	fi
	note_complete
	changed=yes
}

kubeadm_init() {
	with_notices "kubeadm init" kubeadm init --config "$FILLED" --upload-certs --skip-token-print \
		--skip-certificate-key-print "$(preflight)"
}

# kubeadm's requests end after 10 s, whatever its `timeouts` say (kubeadm, app/util/kubeconfig). An emulated API server that
# has just started sometimes takes longer, so what kubeadm did not get done by then is done as it becomes possible.
complete_slow_init() {
	[[ -e $ADMIN && -e $MANIFESTS/kube-apiserver.yaml ]] || exit 1
	log "kubeadm init ended early on this slow machine; its remaining phases follow"
	wait_for 60 "the remaining phases of kubeadm init" remaining_phases
}

remaining_phases() {
	local found
	own_api_server_ready && restore_objects && mark_control_plane && publish_secrets && initialised
}

# kubeadm gives kube-proxy no CPU request, so it gets a fortieth of a busy CPU: on an emulated machine it took ten minutes to
# write its first rule. On a lab's only node, one replica of CoreDNS is enough (see spread_coredns).
suit_emulated_cpu() {
	as_admin --namespace kube-system set resources daemonset kube-proxy --requests cpu=100m >/dev/null || return 1
	[[ -e $COREDNS_PATCH ]] || as_admin scale --namespace kube-system deployment coredns --replicas 1 >/dev/null
}

# A cluster that was created here manually is used as it is, or refused if no machine of the lab could join it.
take_over() {
	local why=
	cmp -s "$HERE/ca.crt" "$PKI/ca.crt" || why="its CA is not the lab's"
	[[ -e $ADMIN && $(servers_in "$ADMIN") == "https://$API_ENDPOINT" ]] || why=${why:-its API is not at the load balancer}
	[[ -z $why ]] ||
		die "the cluster that was created manually on $NODE_NAME can't become the lab's: $why. If you don't need" \
			"its data: run \`sudo kubeadm reset --force\` on $NODE_NAME, then \`./inv up\`, or, to run" \
			"kubeadm init yourself again, \`./inv up --until control-plane\`, which restores the lab's CA"
}

# Whatever was deleted since, or was not created because init was interrupted. The answer that shows it is in `found`.
restore_objects() {
	local missing
	found=$(ask_cluster 2>/dev/null) || {
		restore_administrators
		wait_for 60 "the API to list the objects of kubeadm init" can_list_objects
		found=$(ask_cluster)
	}
	missing=$(missing_objects "$found")
	[[ -n $missing ]] || return 0
	repairs "$(awk '{ $1 = ""; print substr($0, 2) " is missing" }' <<<"$missing")"
	# Phases, separated by lines.
	# shellcheck disable=SC2046
	carry_out $(cut -d' ' -f1 <<<"$missing" | uniq)
}

# carry_out PHASE…: phases of kubeadm init, as OBJECTS names them.
carry_out() {
	local phase words
	fill "$HERE/kubeadm-init.yaml"
	for phase in "$@"; do
		if [[ $phase == bootstrap-token ]]; then
			create_bootstrap_token
		else
			read -r -a words <<<"${phase/\// }"
			init_phase "${words[@]}" --kubeconfig "$ADMIN"
		fi
	done
	changed=yes
}

# Where etcd was restored from a backup from before an upgrade, these objects have the former version, and machines the lab's.
# The phases are those that `kubeadm upgrade apply` carries out in the cluster.
correct_version() {
	local problem
	problem=$(version_problem "$found")
	[[ -n $problem ]] || return 0
	repairs "$problem"
	carry_out upload-config/kubeadm upload-config/kubelet bootstrap-token addon/coredns addon/kube-proxy
}

# This run's token and certificates, for machines that join. `fill` has written the configuration.
publish_secrets() {
	create_bootstrap_token && init_phase upload-certs --upload-certs --kubeconfig "$ADMIN" --skip-certificate-key-print >/dev/null
}

# With what else its phase creates: the permissions of tokens, and cluster-info.
create_bootstrap_token() { init_phase bootstrap-token --kubeconfig "$ADMIN" --skip-token-print >/dev/null; }

# The binding of admin.conf's group, where that may not ask since it was deleted or changed. Where etcd has other data
# than before, the lab's objects are missing as well: that is no cluster to repair.
restore_administrators() {
	local said made=no
	said=$(ask_cluster 2>&1) || true
	refuses_administrator "$said" || return 0
	if [[ ! -e $SUPER_ADMIN ]]; then
		made=yes
	elif [[ -n $(kubeconfig_problem "$SUPER_ADMIN") ]]; then
		rm "$SUPER_ADMIN"
	fi
	[[ -e $SUPER_ADMIN ]] || {
		fill "$HERE/kubeadm-init.yaml"
		init_phase kubeconfig super-admin
	}
	bind_administrators || true
	[[ $made == no ]] || rm "$SUPER_ADMIN"
}

bind_administrators() {
	local missing
	missing=$(ask_cluster as_super_admin) || return 1
	missing=$(missing_objects "$missing")
	(($(grep -c . <<<"$missing") < $(objects | grep -c .))) || return 1
	repairs "the ClusterRoleBinding $ADMINISTRATORS is missing, without which the administrator may do nothing"
	as_super_admin auth reconcile --filename - <<<"$ADMINISTRATORS_BINDING" && changed=yes
}

can_list_objects() {
	local said
	! said=$(ask_cluster 2>&1) || return 0
	echo "$said"
	! refuses_administrator "$said" ||
		echo "this API server does not know the lab's administrator: etcd has other data than before"
	return 1
}

# The uploaded certificates and the token of an earlier run were deleted when the lab was up (revoke.sh).
admit() {
	log "creating a bootstrap token and uploading the certificates for $*"
	fill "$HERE/kubeadm-init.yaml"
	publish_secrets
	# A lost machine leaves its Node behind, Ready for most of a minute, and kubeadm refuses to join a machine
	# with the name of a Ready Node (kubernetes#81056).
	as_admin delete node "$@" --ignore-not-found
	changed=yes
}

# Whether this machine's Node is in `found` without the label or the taint.
found_without_marks() {
	local marks
	[[ $found == *"marks $NODE_NAME "* ]] || return 1
	marks=${found#*"marks $NODE_NAME "}
	[[ -n $(missing_marks "${marks%%$'\n'*}") ]]
}

# A removal that was interrupted left these nodes cordoned (drain.sh), and they stay after all.
end_abandoned_drains() {
	local names name
	names=$(sed -n 's/^drained //p' <<<"$found")
	for name in $names; do
		log "$name accepts pods again"
		as_admin uncordon "$name" >/dev/null
		as_admin annotate node "$name" "$DRAINED_BY-" >/dev/null
		changed=yes
	done
}

# kubeadm made the Deployment for the lab as it was then. Where there are several Kubernetes nodes, its two replicas are
# kept apart (docs/decisions/0010-coredns-apart.md); on a last one, the second replica would wait for ever. It is scaled
# and not patched there: pods without the rule could not be placed beside one that has it.
spread_coredns() {
	local replicas kept_apart coredns=(--namespace kube-system deployment coredns)
	read -r replicas kept_apart < <(sed -n 's/^coredns //p' <<<"$found")
	if [[ ! -e $COREDNS_PATCH ]]; then
		[[ -n $kept_apart ]] && ((replicas > 1)) || return 0
		as_admin scale "${coredns[@]}" --replicas 1 >/dev/null
	elif [[ -z $kept_apart ]]; then
		as_admin patch "${coredns[@]}" --patch-file "$COREDNS_PATCH" >/dev/null
	elif ((replicas < 2)); then
		as_admin scale "${coredns[@]}" --replicas 2 >/dev/null
	else
		return 0
	fi
	changed=yes
}

# kubeadm wrote it, and each kube-proxy reads it when it starts. The server is the load balancer, and metrics can be read
# from other machines: an earlier version of the kit left kubeadm's default. All else in it stays as it is.
correct_kube_proxy() {
	local server metrics=kept
	server=$(servers_in <<<"$found")
	[[ $'\n'$found$'\n' == *$'\nmetricsBindAddress: '@(\"\"|127.0.0.1:10249)$'\n'* ]] || metrics=
	[[ -n $server && $server != "https://$API_ENDPOINT" || -n $metrics ]] || return 0
	as_admin --namespace kube-system get configmap kube-proxy --output yaml |
		sed "s#^\( *server: \)[\"']\?https://.*#\1https://$API_ENDPOINT#
			s#^\( *metricsBindAddress: \)\(\"\"\|127.0.0.1:10249\)\$#\10.0.0.0:10249#" | as_admin replace --filename - >/dev/null
	as_admin --namespace kube-system rollout restart daemonset kube-proxy >/dev/null
	changed=yes
}

# What control planes that join are configured by. Labs of an earlier version leave the metrics of their components to
# their own machine.
publish_configuration() {
	[[ $found != *"name: bind-address"* ]] || return 0
	repairs "kubeadm's configuration did not let other machines read the control plane's metrics"
	fill "$HERE/kubeadm-init.yaml"
	init_phase upload-config kubeadm --kubeconfig "$ADMIN"
	changed=yes
}

# Machines without a Node, whatever files they have: they have to join again.
missing() {
	local name
	for name in $KUBERNETES_NODES; do
		[[ $'\n'$found$'\n' == *$'\n'"Node - $name"$'\n'* ]] || echo "$name"
	done
}

# A sed script that fills the gaps in kubeadm-join.yaml, for joins that you run yourself.
write_manual_secrets() {
	# shellcheck source=/dev/null
	source "$SECRETS" # BOOTSTRAP_TOKEN and CERTIFICATE_KEY
	printf 's/@%s@/%s/\n' BOOTSTRAP_TOKEN "$BOOTSTRAP_TOKEN" CERTIFICATE_KEY "$CERTIFICATE_KEY" |
		place 600 "$MANUAL_SECRETS" || true
	unset BOOTSTRAP_TOKEN CERTIFICATE_KEY
}

# Without these there is nothing to repair this control plane from.
require_what_only_others_have() {
	local lost
	[[ -e $ONCE_COMPLETE ]] || return 0
	[[ -s $PKI/ca.key || ! -s /run/ha-lab/ca.key ]] || place 600 "$PKI/ca.key" </run/ha-lab/ca.key
	lost=$(lost_files)
	[[ -n $lost ]] || return 0
	lost="$NODE_NAME can't be repaired with its own files: ${lost//$'\n'/; }"
	! has_other_control_planes ||
		die "$lost. If another control plane is complete, \`./inv up\` or \`./inv replace $NODE_NAME\` makes this one join" \
			"again. If none is, the cluster is lost: \`./inv destroy\`, then \`./inv up\`"
	die "$lost. No other control plane has them, so the cluster is lost: \`./inv destroy\`, then \`./inv up\`, makes a" \
		"new one"
}

ready_or_lost() {
	own_api_server_ready || { runs_etcd && [[ -n $(etcd_data_problem) ]]; } || removed_from_etcd || [[ -n $(crash_problem) ]]
}

wait_for_own_api_server() {
	local problem
	watch_containers
	wait_for 180 "this control plane, which was initialised earlier" ready_or_lost
	require_what_only_others_have
	own_api_server_ready >/dev/null 2>&1 || ! removed_from_etcd ||
		die "etcd's other members have removed $NODE_NAME's member, so this control plane has to join again:" \
			"\`./inv replace $NODE_NAME\`"
	problem=$(crash_problem)
	[[ -z $problem ]] || own_api_server_ready >/dev/null 2>&1 ||
		die "$problem. If you have edited its manifest in $MANIFESTS, correct it, or move it out of that folder:" \
			"\`./inv up\` then writes it again as kubeadm does. \`./inv logs\` collects the complete log"
}

main() {
	local alone=no by_hand=no newcomers found
	exclusively
	trap remove_secrets EXIT
	[[ ${1:-} != --stdin ]] || { read_secrets && shift && require_load_balancer; }
	[[ ${1:-} != --alone ]] || { alone=yes && shift; }
	[[ ${1:-} != --by-hand ]] || { by_hand=yes && shift; }
	[[ $(membership) != damaged ]] || repair_control_plane
	if [[ ! -e $ADMIN && ! -e $MANIFESTS/kube-apiserver.yaml ]]; then
		init
	elif [[ $alone == yes ]] && init_was_interrupted; then
		reset_node alone
		init
	else
		require_what_only_others_have
		start_kubelet
		[[ -e $ONCE_COMPLETE ]] || take_over
		point_at_load_balancer "$ADMIN" || true
		own_api_server_ready >/dev/null 2>&1 || wait_for_own_api_server
		restore_objects
		correct_version
		! found_without_marks || mark_control_plane
		[[ $changed == no ]] || {
			wait_for 60 "what was repaired to be complete" initialised
			found=$(ask_cluster)
		}
		note_complete
		wait_until_api_has_heard
		end_abandoned_drains
		spread_coredns
		correct_kube_proxy
		publish_configuration
		metrics_reachable
		newcomers=$(printf '%s\n' "$@" && missing)
		# Names, separated by spaces.
		# shellcheck disable=SC2046
		[[ -z ${newcomers//$'\n'/} ]] || admit $(sort -u <<<"$newcomers")
	fi
	((LAB_PATIENCE == 1)) || wait_for 60 "the API to take the CPU requests of an emulated lab" suit_emulated_cpu
	[[ $by_hand == no || $# == 0 ]] || write_manual_secrets
	finish
}

main "$@"
