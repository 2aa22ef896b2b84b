# shellcheck shell=bash
# shellcheck disable=SC2034  # what a sourced file sets, others use
# What the scripts that call kubeadm share: questions to the cluster, secrets, and the reset of an incomplete node.
# Sourced after lib.sh.

readonly MANIFESTS=/etc/kubernetes/manifests ADMIN=/etc/kubernetes/admin.conf KUBELET=/etc/kubernetes/kubelet.conf
readonly BOOTSTRAP=/etc/kubernetes/bootstrap-kubelet.conf
readonly FILLED=/run/ha-lab/kubeadm.yaml PKI=/etc/kubernetes/pki
# Written when kubeadm init, or a control plane's join, was complete. It never means that something is done (the API
# server is asked for that); it only distinguishes a control plane that may be in use from an interrupted init or join.
readonly ONCE_COMPLETE=/etc/ha-lab/once-complete
# Where leave.sh puts the manifest of an API server that ends, since its machine is about to leave.
readonly API_SERVER_ASIDE=/etc/kubernetes/kube-apiserver.yaml.left
# The annotation of Nodes that the kit has cordoned. Their machines are removed next, or accept pods again: others have
# been cordoned by a user, and stay so.
readonly DRAINED_BY=ha-lab/drained-by
# Programs of the version that a machine is upgraded to, in a folder for each version, until they are installed. On
# containerd's file system, so that images' layers are moved to their places (payload.sh).
readonly PAYLOADS=/var/lib/containerd/ha-lab-upgrade
payload_of() { echo "$PAYLOADS/$1"; }
# A run's secrets for those who work manually, as the handouts say. They are invalid once `./inv up` has gone on.
readonly MANUAL_SECRETS=/root/secrets.sed
readonly MANUAL_FILES=("$MANUAL_SECRETS" /root/kubeadm-init.yaml /root/kubeadm-join.yaml)

# shellcheck source=provision/api-server.sh
source "$HERE/api-server.sh"
# shellcheck source=provision/etcd-certificates.sh
source "$HERE/etcd-certificates.sh"

# What all control planes have in common (kubeadm, "Manual certificate distribution"), in $PKI. etcd's CA has no key there
# where etcd has machines of its own.
if runs_etcd; then
	readonly SHARED_PKI=({ca,front-proxy-ca,etcd/ca}.{crt,key} sa.key sa.pub)
else
	readonly SHARED_PKI=({ca,front-proxy-ca}.{crt,key} sa.key sa.pub)
fi
# Names of one line, separated by commas or spaces. $CONTROL_PLANES is there where etcd has machines of its own.
has_other_control_planes() { [[ ${CONTROL_PLANES:-$ETCD_ENDPOINTS} == *[,\ ]* ]]; }

# On a cgroup v1 host, and only there, kubeadm's SystemVerification is an error (Kubernetes 1.35). An emulated
# machine has one CPU, with which kubeadm makes no control plane (NumCPU).
preflight() {
	local ignored=Swap
	[[ -e /sys/fs/cgroup/cgroup.controllers ]] || ignored+=,SystemVerification
	((LAB_PATIENCE == 1)) || ignored+=,NumCPU
	echo "--ignore-preflight-errors=$ignored"
}

as_admin() { kubectl --kubeconfig "$ADMIN" --request-timeout "$((10 * LAB_PATIENCE))s" "$@"; }
as_kubelet() { kubectl --kubeconfig "$KUBELET" --request-timeout "$((10 * LAB_PATIENCE))s" "$@"; }

# Without a way to the load balancer every later wait would end after minutes, with a less precise reason. Only where
# the kit runs this: a bare `vagrant up` may still be making the load balancer.
require_load_balancer() { "$HERE/reach.sh" --require || exit 1; }

# fill FILE: the rendered kubeadm configuration with this run's secrets in it, 0600, on tmpfs. Bash does
# the replacing, so that no secret is ever a word of a command.
fill() {
	local text
	[[ -s $SECRETS ]] || die "no secrets were given for this run; bring the lab up with \`./inv up\`"
	# shellcheck source=/dev/null
	source "$SECRETS" # BOOTSTRAP_TOKEN, and on control planes CERTIFICATE_KEY
	text=$(<"$1")
	text=${text//@BOOTSTRAP_TOKEN@/$BOOTSTRAP_TOKEN}
	text=${text//@CERTIFICATE_KEY@/${CERTIFICATE_KEY:-}}
	(umask 077 && printf '%s\n' "$text" >"$FILLED")
	unset BOOTSTRAP_TOKEN CERTIFICATE_KEY text
}

# The caller's secrets, from standard input. Called with the lock: an earlier run that is about to end would remove
# these with its own. For a bare `vagrant up` settle.sh has put them there.
read_secrets() {
	install -d -m 700 /run/ha-lab
	tar -xf - -C /run/ha-lab --no-same-owner
}

remove_secrets() {
	rm -f "$SECRETS" "$FILLED" /run/ha-lab/token.conf /run/ha-lab/ca.key "$ETCD_CA_KEY"
	remove_link_to_etcd_ca_key
}
remove_manual_files() { rm -f "${MANUAL_FILES[@]}"; }

note_complete() { [[ -e $ONCE_COMPLETE ]] || date -Is >"$ONCE_COMPLETE"; }

# The kubelet gets it late: in init's last phase before the addons (kubelet-finalize), and at the end of a join's
# bootstrap, where the kubelet itself writes the file.
kubelet_has_its_certificate() { grep -qs kubelet-client-current.pem "$KUBELET"; }

# kubeadm join removes the bootstrap kubeconfig, which has the token in it, once the kubelet has its own certificate. A
# join that was killed just then leaves it behind. Called with the lock: no join is under way.
remove_bootstrap_kubeconfig() {
	[[ -e $BOOTSTRAP ]] && kubelet_has_its_certificate || return 0
	rm "$BOOTSTRAP"
	changed=yes
}

# After a boot the API still shows this node and its pods as they were before it. The kubelet has reported since then
# when every container that the API shows as running does run.
api_has_heard_since_boot() {
	local named running id
	named=$(as_kubelet get pods --all-namespaces --field-selector "spec.nodeName=$NODE_NAME" --output \
		'go-template={{range .items}}{{range .status.containerStatuses}}{{if .state.running}}{{.containerID}} {{end}}{{end}}{{end}}') ||
		return 1
	running=$(ctr --namespace k8s.io tasks list | awk '$3 == "RUNNING" { print $1 }') || return 1
	for id in $named; do
		grep -qx "${id#containerd://}" <<<"$running" || {
			echo "the API still shows this machine's pods as they were before it booted; is its kubelet running?"
			return 1
		}
	done
}
wait_until_api_has_heard() { wait_for 120 "the API to hear from $NODE_NAME's kubelet" api_has_heard_since_boot; }

# If a user has stopped the kubelet, nothing else would start it before the next boot.
start_kubelet() {
	systemctl is-active --quiet kubelet || {
		repairs "the kubelet did not run"
		systemctl start kubelet
		changed=yes
	}
}

# restart_kubelet: before static pods are changed; the API must answer. If a manifest is removed while a kubelet that has just
# started still mounts that pod's volumes, the pod ends only two minutes later, since the kubelet waits for volumes that are no
# longer wanted (volume_manager.go, podAttachAndMountTimeout).
restart_kubelet() {
	systemctl restart kubelet
	# Only time depends on these metrics, which are alpha ones.
	(wait_for 30 "the kubelet to have mounted its pods' volumes" kubelet_has_mounted) || log "going on without that"
}
# All static pods have volumes of the host.
kubelet_has_mounted() {
	local said wanted
	said=$(as_admin get --raw "/api/v1/nodes/$NODE_NAME/proxy/metrics") || return 1
	wanted=$(cat "$MANIFESTS"/*.yaml | grep -c hostPath:) || true
	awk -v wanted="$wanted" '/^volume_manager_total_volumes\{.*host-path/ { count[$1 ~ /actual_state_of_world/] = $2 }
		END {
			if (count[1] > 0 && count[1] >= wanted && count[1] == count[0]) exit 0
			printf "it has mounted %d of %d directories\n", count[1], (count[0] > wanted ? count[0] : wanted)
			exit 1
		}' <<<"$said"
}

# servers_in [FILE]: the value of each `server: …` line of a kubeconfig, which may be quoted.
servers_in() { sed -n "s/^ *server: *[\"']\?\([^\"' ]*\).*/\1/p" "$@"; }

# point_at SERVER KUBECONFIG: whether that changed it.
point_at() { [[ -s $2 && $(servers_in "$2") != "$1" ]] && place 600 "$2" < <(sed "s#^\( *server: \).*#\1$1#" "$2"); }
point_at_load_balancer() { point_at "https://$API_ENDPOINT" "$1"; }

nothing_of_a_cluster() {
	[[ ! -e $KUBELET && ! -e $BOOTSTRAP && ! -e $MANIFESTS/kube-apiserver.yaml ]]
}

# The CA was created on the host, so that the load balancer and the joins can verify it from the start; kubeadm uses
# the one it finds (kubernetes.io, "Using custom certificates"). Certificates of another CA are useless beside it.
install_lab_ca() {
	cmp -s "$HERE/ca.crt" "$PKI/ca.crt" || rm -rf "$PKI"
	place 644 "$PKI/ca.crt" <"$HERE/ca.crt" || true
	place 600 "$PKI/ca.key" </run/ha-lab/ca.key || true
}

# The label and the taint are among the last things that init and a control plane's join create.
marked_control_plane() {
	local marks
	marks=$(as_admin get node "$NODE_NAME" --output "jsonpath={.metadata.labels} taints={.spec.taints[*].key}") || return 1
	marks=$(missing_marks "$marks")
	[[ -z $marks ]] || {
		echo "$marks"
		return 1
	}
}

# missing_marks MARKS: which mark is not in MARKS, a Node's labels and, after `taints=`, the keys of its taints.
missing_marks() {
	if [[ ${1% taints=*} != *node-role.kubernetes.io/control-plane* ]]; then
		echo "this node has no control-plane label yet"
	elif [[ ${1##* taints=} != *node-role.kubernetes.io/control-plane* ]]; then
		echo "this node has no control-plane taint yet"
	fi
}

pod_network_manifest() { kubectl kustomize --load-restrictor LoadRestrictionsNone "$HERE/pod-network"; }

# The hash of the manifest that was applied last and that of its pods then, its pods as they are to be now, and the
# arguments of flannel's agent. What `kubectl rollout restart` changes is not of a pod's spec.
POD_NETWORK='{{range .items}}{{if eq .metadata.name "ha-lab-pod-network"}}sha256 {{.data.sha256}}{{"\n"}}applied {{.data.pods}}{{"\n"}}'
POD_NETWORK+='{{else if eq .kind "DaemonSet" "Deployment"}}pods {{.metadata.name}} {{.spec.template.spec}}{{"\n"}}{{end}}'
POD_NETWORK+='{{if eq .kind "DaemonSet"}}{{.metadata.name}}{{range .spec.template.spec.containers}} {{.args}}{{end}}{{"\n"}}{{end}}{{end}}'
readonly POD_NETWORK
readonly POD_NETWORK_HASH='
---
apiVersion: v1
kind: ConfigMap
metadata: {name: ha-lab-pod-network, namespace: kube-system}'

# ask_pod_network FILE [WORD…]: for the objects of this manifest.
ask_pod_network() {
	cat "$1" - <<<"$POD_NETWORK_HASH" | as_admin get --filename - "${@:2}" --output "go-template=$POD_NETWORK"
}

# Of what ask_pod_network has printed, as one hash. Go prints an object's keys in order (text/template, fmt).
hash_of_pods() { sed -n 's/^pods //p' | sha256sum | cut -d' ' -f1; }

# pod_network_applied FILE: everything of this manifest is in the cluster, which itself keeps the hashes of what was applied
# last, and no user has changed its pods since. (`kubectl diff` would say the same in six seconds.) A user may have applied flannel's original
# manifest since.
pod_network_applied() {
	local found
	found=$(ask_pod_network "$1") || return 1
	[[ $'\n'$found$'\n' == *$'\n'"sha256 $(hash_of "$1")"$'\n'* ]] || return 1
	[[ $'\n'$found$'\n' == *$'\n'"applied $(hash_of_pods <<<"$found")"$'\n'* ]] || return 1
	[[ -e $HERE/pod-network/manifest.yaml || $found == *"kube-flannel-ds "*--iface-can-reach* ]] || return 1
	[[ $NETWORK_POLICY == none ]] || return 0
	found=$(policy_objects) && [[ -z $found ]]
}

# What pod-network/kube-router.yaml has created, KIND/NAME a line. A kube-router of a user's own has no such label.
policy_objects() {
	as_admin --namespace kube-system get daemonsets,serviceaccounts,clusterroles,clusterrolebindings \
		--selector "$POLICY_PART" --output name
}
readonly POLICY_PART=ha-lab/part=network-policy

# Chains that a kube-router which has ended has left in this machine's rules, a name a line. They go on denying.
policy_chains() {
	! pgrep -x kube-router >/dev/null || return 0
	iptables-save --table filter | sed -n 's/^:\(KUBE-\(ROUTER\|NWPLCY\|POD-FW\)-[^ ]*\) .*/\1/p'
}

hash_of() { sha256sum <"$1" | cut -d' ' -f1; }

# apply_manifest FILE WHAT: while a namespace is being deleted nothing can be created in it, so that is waited for.
apply_manifest() {
	as_admin apply --filename "$1" || {
		wait_for 120 "what was deleted of $2 to be gone" nothing_leaves "$1"
		as_admin apply --filename "$1"
	}
}

# missing_image FILE: the first image that a manifest of the kit's names, where this machine lacks it. Machines pull
# nothing: each has the images of the golden machine that it is a clone of, and an earlier version's lacks some.
missing_image() {
	local image found
	image=$(sed -n '0,/^ *image: "/ s/^ *image: "\(.*\)"$/\1/p' "$1")
	found=$(ctr --namespace k8s.io images list --quiet "name==$image") || return
	[[ -n $found ]] || echo "$image"
}

readonly LEAVING='{{range .items}}{{if .metadata.deletionTimestamp}}{{.kind}} {{.metadata.name}} is still being deleted{{"\n"}}{{end}}{{end}}'

# nothing_leaves FILE: nothing of this manifest is being deleted.
nothing_leaves() {
	local leaving
	# From standard input it is a list also where only one of these objects is there.
	leaving=$(as_admin get --filename - --ignore-not-found --output "go-template=$LEAVING" <"$1") || return 1
	[[ -z $leaving ]] || {
		echo "$leaving"
		return 1
	}
}

# Kind, name, and of a Secret the description, never its content.
readonly NODES_AND_SECRETS='{{range .items}}{{.kind}} {{.metadata.name}} {{with .data}}{{with .description}}{{. | base64decode}}{{end}}{{end}}{{"\n"}}{{end}}'

nodes_and_secrets() { as_admin --namespace kube-system get nodes,secrets --output go-template="$NODES_AND_SECRETS"; }

# secrets_of_runs FOUND: of what nodes_and_secrets has printed, names of the Secrets that could add a machine: the token
# of kubeadm-init.yaml, the uploaded certificates, and the token whose end deletes them. Other tokens are not the lab's.
secrets_of_runs() {
	awk '$1 == "Secret" && ($2 == "kubeadm-certs" || / one bring-up of the lab$/ || /kubeadm-certs/) { print $2 }' <<<"$1"
}

all_nodes_joined() {
	local found
	found=$(nodes_and_secrets) || return 1
	all_nodes_in "$found"
}

# all_nodes_in FOUND: whether what nodes_and_secrets has printed names each; prints which one it does not name.
all_nodes_in() {
	local name
	for name in $KUBERNETES_NODES; do
		[[ $'\n'$1 == *$'\n'"Node $name "* ]] || {
			echo "$name has not joined yet"
			return 1
		}
	done
}

# Succeeds if the API answers that it has this Node without the label or the taint.
lacks_marks() {
	local said
	! said=$(marked_control_plane 2>/dev/null) && [[ -n $said ]]
}

mark_control_plane() {
	log "marking $NODE_NAME as a control plane"
	fill "$HERE/kubeadm-init.yaml"
	init_phase mark-control-plane
	changed=yes
}

# A phase of kubeadm init, with the configuration that `fill` has put there.
init_phase() { kubeadm init phase "$@" --config "$FILLED"; }

# As the client that kubeadm has for it, or as the API server where etcd runs elsewhere.
if runs_etcd; then ETCD_CLIENT=etcd/healthcheck-client; else ETCD_CLIENT=apiserver-etcd-client; fi
readonly ETCD_CLIENT
readonly ETCDCTL=(
	etcdctl --cacert /etc/kubernetes/pki/etcd/ca.crt
	--cert "/etc/kubernetes/pki/$ETCD_CLIENT.crt"
	--key "/etc/kubernetes/pki/$ETCD_CLIENT.key"
)

etcd() { etcd_at "$ETCD_ENDPOINTS" "$@"; }

# etcd_at ENDPOINTS COMMAND…: ENDPOINTS are client URLs, separated by commas.
etcd_at() { "${ETCDCTL[@]}" --command-timeout "$((5 * LAB_PATIENCE))s" --endpoints "$@"; }

# own_member_says SECONDS COMMAND…: what this machine's own member answers within so many seconds, as JSON.
own_member_says() {
	timeout --kill-after 1 "$1" "${ETCDCTL[@]}" --endpoints https://127.0.0.1:2379 --command-timeout "$(($1 - 1))s" \
		--write-out json "${@:2}"
}

# ID and learner flag of this machine's member, if etcd has one: by name, or by peer address for one
# that was added and never started (it has no name yet).
own_member() {
	local members
	members=$(etcd member list --write-out simple) || return
	own_member_in "$members"
}
own_member_in() {
	awk -F', ' -v name="$NODE_NAME" -v peer="https://$NODE_ADDRESS:2380" '$3 == name || $4 == peer { print $1, $6 }' <<<"$1"
}

# Succeeds if etcd's other members answer, and this machine's is not among them. A complete control plane has one, so
# it was removed; unless etcd runs elsewhere.
removed_from_etcd() {
	local members
	runs_etcd || return 1
	members=$(etcd member list --write-out simple 2>/dev/null) && [[ -n $members && -z $(own_member_in "$members") ]]
}

# This run's bootstrap token may read what a join needs. Where the API answers that, etcd has its quorum, too.
token_is_accepted() {
	local needed=(configmap/kubeadm-config configmap/kubelet-config)
	[[ $NODE_ROLE != control-plane ]] || needed+=(secret/kubeadm-certs)
	as_token --namespace kube-system get "${needed[@]}" --output name
}
as_token() { kubectl --kubeconfig /run/ha-lab/token.conf --request-timeout "$((5 * LAB_PATIENCE))s" "$@"; }

token_kubeconfig() {
	fill "$HERE/token.conf"
	mv "$FILLED" /run/ha-lab/token.conf
}

# No machine is reset before it is sure that it can join again.
require_join_possible() {
	token_kubeconfig
	(wait_for 30 "the API to accept this run's bootstrap token" token_is_accepted) ||
		die "$NODE_NAME has to join again, and can't: the API does not accept this run's bootstrap token (see above)." \
			"So it was not reset. Repeat \`./inv up\`, which makes a new token where it finds a machine incomplete." \
			"If that ends here again: \`./inv replace $NODE_NAME\`"
}

# A member's data is kept until etcd has answered: the others may need its vote. Without a certificate with which etcd
# can be asked, its member is removed when this machine joins again.
require_answer_of_etcd() {
	[[ -z $(pair_problem etcd/healthcheck-client)$(certificate_problem "$PKI/etcd/ca.crt") ]] || return 0
	(wait_for 30 "etcd to report $NODE_NAME's member" own_member) ||
		die "it is not known whether etcd's majority needs $NODE_NAME's member (see above), so the machine was not reset" \
			"and its data is kept. \`./inv status\` shows which control planes run; once a majority of them does," \
			"\`./inv up\` goes on here"
}

# reset_node [alone]: removes what an interrupted init or join left on this machine. kubeadm reset alone may leave the
# etcd member behind, and a learner that is left behind keeps all others from joining (kubeadm#3269), so the member is
# removed first. alone: no other machine is in this cluster, so that no member and no Node has to be removed.
reset_node() {
	local member="" of_etcd=no
	if [[ ${1:-} != alone && $NODE_ROLE == control-plane && -e /etc/kubernetes/pki/etcd/healthcheck-client.crt ]]; then
		of_etcd=yes
		require_answer_of_etcd
	fi
	log "removing what an earlier attempt left on $NODE_NAME"
	# An interrupted join may have registered the Node. It stays Ready for most of a minute, and kubeadm refuses to
	# join a machine with the name of a Ready Node (kubernetes#81056).
	if [[ ${1:-} != alone && -e $ADMIN ]]; then
		systemctl stop kubelet
		(wait_for 60 "the API to delete the Node $NODE_NAME" as_admin delete node "$NODE_NAME" --ignore-not-found) ||
			log "the Node $NODE_NAME is still there"
	fi
	if [[ $of_etcd == yes ]]; then
		member=$(own_member 2>/dev/null | cut -d' ' -f1) || member=
		[[ -z $member ]] || etcd member remove "$member" ||
			die "etcd on the other control planes refused to remove $NODE_NAME's member $member, so its data is kept;" \
				"is another control plane down? \`./inv status\` shows it"
	fi
	with_notices "kubeadm reset" kubeadm reset --force --cri-socket unix:///run/containerd/containerd.sock ||
		log "kubeadm reset failed"
	rm -rf "$PKI" /var/lib/etcd/member "$ONCE_COMPLETE" "$API_SERVER_ASIDE"
	remove_pod_network
	changed=yes
}

# What flannel's agent has written: this node's part of the pods' network, with the bridge's address in it.
subnet_of_pods() { sed -n 's/^FLANNEL_SUBNET=//p' /run/flannel/subnet.env 2>/dev/null || true; }

# containerd takes the first configuration.
network_is_flannel() {
	local networks=(/etc/cni/net.d/*)
	[[ ${networks[0]} == */10-flannel.conflist ]]
}

# The kubelet creates a new sandbox for a pod whose sandbox has stopped. Pods on the host's network have no address of their own.
stop_sandboxes_with_addresses() {
	local pods pod
	command -v crictl >/dev/null || return 0 # machines of an earlier version of the kit may have none
	pods=$(crictl pods --state ready --quiet)
	for pod in $pods; do
		[[ -z $(crictl inspectp --output go-template --template '{{.status.network.ip}}' "$pod") ]] || crictl stopp "$pod"
	done
}

# kubeadm reset does not remove it.
remove_pod_network() {
	rm -rf /etc/cni/net.d/*
	ip link delete cni0 2>/dev/null || true
	ip link delete flannel.1 2>/dev/null || true
}

# Private keys and kubeconfigs that not only root can read, a path each.
open_keys() {
	[[ -d /etc/kubernetes ]] || return 0
	find /etc/kubernetes -path '/etc/kubernetes/pki/*.key' -type f -perm /077
	find /etc/kubernetes -maxdepth 1 -name '*.conf' -perm /077
}
