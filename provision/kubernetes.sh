# shellcheck shell=bash
# shellcheck disable=SC2034  # what a sourced file sets, others use
# What the scripts that call kubeadm share: asking the cluster, filling in secrets, undoing half a node.
# Sourced after lib.sh.

readonly MANIFESTS=/etc/kubernetes/manifests ADMIN=/etc/kubernetes/admin.conf KUBELET=/etc/kubernetes/kubelet.conf
readonly FILLED=/run/ha-lab/kubeadm.yaml PKI=/etc/kubernetes/pki
# Written when kubeadm init has ended well. It never says that something is done (the API server is asked
# for that); it only forbids undoing a control plane that may hold somebody's work.
readonly INITIALISED=/etc/ha-lab/initialised
# Where whoever works by hand has a run's secrets, as the handouts say: worthless once the kit has gone on.
readonly FOR_HANDS=/root/secrets.sed
readonly BY_HAND=("$FOR_HANDS" /root/kubeadm-init.yaml /root/kubeadm-join.yaml)

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

# healthy URL: prints why not.
healthy() {
	curl --silent --show-error --max-time $((3 * LAB_PATIENCE)) --fail --cacert "$HERE/ca.crt" --output /dev/null "$1"
}

api_through_load_balancer() { healthy "https://$API_ENDPOINT/readyz"; }
own_api_server() { healthy "https://$NODE_ADDRESS:6443/readyz"; }

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

# The caller's secrets, from standard input, only when nothing else runs here: an earlier run may still be
# at its end, and would take these away with its own. For a bare `vagrant up` settle.sh has put them there.
take_secrets() {
	install -d -m 700 /run/ha-lab
	tar -xf - -C /run/ha-lab --no-same-owner
}

forget_secrets() { rm -f "$SECRETS" "$FILLED" /run/ha-lab/token.conf /run/ha-lab/ca.key; }
forget_by_hand() { rm -f "${BY_HAND[@]}"; }

# kubeadm gives it one late: in init's last phase but the addons (kubelet-finalize), and at the end of a join's
# bootstrap, where the kubelet itself writes the file.
kubelet_has_its_certificate() { grep -qs kubelet-client-current.pem "$KUBELET"; }

# A machine that has booted is Ready by the API's word, and all its pods with it, as it was before; its kubelet has
# reported once no container is named any more that does not run.
told_before_boot() {
	local named running id
	named=$(as_kubelet get pods --all-namespaces --field-selector "spec.nodeName=$NODE_NAME" --output \
		'go-template={{range .items}}{{range .status.containerStatuses}}{{if .state.running}}{{.containerID}} {{end}}{{end}}{{end}}') ||
		return 1
	running=$(ctr --namespace k8s.io tasks list | awk '$3 == "RUNNING" { print $1 }') || return 1
	for id in $named; do
		grep -qx "${id#containerd://}" <<<"$running" || {
			echo "what the API knows of its pods is from before it booted; does its kubelet run?"
			return 1
		}
	done
}
heard_of_since_boot() { wait_for 120 "$NODE_NAME" told_before_boot; }

# Where somebody has stopped it, nothing else would start it before the next boot.
start_kubelet() {
	systemctl is-active --quiet kubelet || {
		systemctl start kubelet
		changed=yes
	}
}

nothing_of_a_cluster() {
	[[ ! -e $KUBELET && ! -e /etc/kubernetes/bootstrap-kubelet.conf && ! -e $MANIFESTS/kube-apiserver.yaml ]]
}

# The CA was made on the host, so that the load balancer and the joins can verify it from the start; kubeadm uses
# what it finds (kubernetes.io, "Using custom certificates"). What another CA has signed is of no use beside it.
lab_s_ca() {
	cmp -s "$HERE/ca.crt" "$PKI/ca.crt" || rm -rf "$PKI"
	place 644 "$PKI/ca.crt" <"$HERE/ca.crt" || true
	place 600 "$PKI/ca.key" </run/ha-lab/ca.key || true
}

# The label is among the last things that init and a control plane's join do.
labelled_control_plane() {
	local labels
	labels=$(as_admin get node "$NODE_NAME" --output "jsonpath={.metadata.labels}") || return 1
	[[ $labels == *node-role.kubernetes.io/control-plane* ]] || {
		echo "this node has no control-plane label yet"
		return 1
	}
}

readonly ETCDCTL=(
	etcdctl --cacert /etc/kubernetes/pki/etcd/ca.crt
	--cert /etc/kubernetes/pki/etcd/healthcheck-client.crt
	--key /etc/kubernetes/pki/etcd/healthcheck-client.key
)

etcd() { "${ETCDCTL[@]}" --command-timeout "$((5 * LAB_PATIENCE))s" --endpoints "$ETCD_ENDPOINTS" "$@"; }

# ID and learner flag of this machine's member, if etcd has one: by name, or by peer address for one
# that was added and never started (it has no name yet).
own_member() {
	etcd member list --write-out simple |
		awk -F', ' -v name="$NODE_NAME" -v peer="https://$NODE_ADDRESS:2380" '$3 == name || $4 == peer { print $1, $6 }'
}

# Undo half a node. kubeadm reset alone may leave the etcd member behind, and a learner left behind
# keeps everyone else from joining (kubeadm#3269), so the member goes first.
undo() { # [alone]: nobody else is in this cluster, so there is no membership to give back
	local member=
	log "undoing what is left of an earlier try on $NODE_NAME"
	# A join that was cut off may have registered it, and kubeadm refuses to join under the name of a Ready Node
	# (kubernetes#81056), which it would be for most of a minute.
	if [[ ${1:-} != alone && -e $ADMIN ]]; then
		systemctl stop kubelet
		(wait_for 60 "the API, to give up this Node" as_admin delete node "$NODE_NAME" --ignore-not-found) ||
			log "the Node $NODE_NAME is still there"
	fi
	if [[ ${1:-} != alone && $NODE_ROLE == control-plane && -e /etc/kubernetes/pki/etcd/healthcheck-client.crt ]]; then
		member=$(own_member 2>/dev/null | cut -d' ' -f1) || member=
		[[ -z $member ]] || etcd member remove "$member" ||
			die "etcd does not give up its member $member of this machine, so its data is kept; is another one down?"
	fi
	kubeadm reset --force --cri-socket unix:///run/containerd/containerd.sock || log "kubeadm reset ended badly"
	rm -rf "$PKI" /var/lib/etcd/member "$INITIALISED"
	forget_pod_network
	changed=yes
}

# kubeadm reset leaves it to others.
forget_pod_network() {
	rm -rf /etc/cni/net.d/*
	ip link delete cni0 2>/dev/null || true
	ip link delete flannel.1 2>/dev/null || true
}
