# shellcheck shell=bash
# shellcheck disable=SC2034  # what a sourced file sets, others use
# The objects that kubeadm init and the add-ons' manifests create in the cluster, and which of them are missing.
# control-plane-init.sh and addons.sh create those again, unfinished.sh reports them. Sourced after kubernetes.sh.

# The objects that phases of kubeadm init create, in the order of the phases: PHASE KIND NAMESPACE NAME. `/` stands for
# the space in a phase's name, `-` for no namespace.
readonly OBJECTS='
upload-config/kubeadm ConfigMap kube-system kubeadm-config
upload-config/kubeadm Role kube-system kubeadm:nodes-kubeadm-config
upload-config/kubeadm RoleBinding kube-system kubeadm:nodes-kubeadm-config
upload-config/kubelet ConfigMap kube-system kubelet-config
upload-config/kubelet Role kube-system kubeadm:kubelet-config
upload-config/kubelet RoleBinding kube-system kubeadm:kubelet-config
bootstrap-token ClusterRole - kubeadm:get-nodes
bootstrap-token ClusterRoleBinding - kubeadm:get-nodes
bootstrap-token ClusterRoleBinding - kubeadm:kubelet-bootstrap
bootstrap-token ClusterRoleBinding - kubeadm:node-autoapprove-bootstrap
bootstrap-token ClusterRoleBinding - kubeadm:node-autoapprove-certificate-rotation
bootstrap-token ClusterRoleBinding - kubeadm:apiserver-kubelet-client
bootstrap-token ConfigMap kube-public cluster-info
bootstrap-token Role kube-public kubeadm:bootstrap-signer-clusterinfo
bootstrap-token RoleBinding kube-public kubeadm:bootstrap-signer-clusterinfo
addon/coredns ConfigMap kube-system coredns
addon/coredns ClusterRole - system:coredns
addon/coredns ClusterRoleBinding - system:coredns
addon/coredns ServiceAccount kube-system coredns
addon/coredns Deployment kube-system coredns
addon/coredns Service kube-system kube-dns
addon/kube-proxy ServiceAccount kube-system kube-proxy
addon/kube-proxy ConfigMap kube-system kube-proxy
addon/kube-proxy DaemonSet kube-system kube-proxy
addon/kube-proxy ClusterRoleBinding - kubeadm:node-proxier
addon/kube-proxy Role kube-system kube-proxy
addon/kube-proxy RoleBinding kube-system kube-proxy
'
# The label of everything of an add-on, with its name; and the annotation of the ConfigMap in kube-system that is there as
# long as anything of it may be, and says what was applied last.
readonly ADDON_LABEL=ha-lab/addon ADDON_APPLIED=ha-lab/applied
# What is asked of these objects and of the lab's Nodes: KIND NAMESPACE NAME of each that the cluster has, and with it
#   drained NAME              a Node that the kit has cordoned
#   marks NAME LABELS taints=KEYS
#   coredns REPLICAS KEY…     the topology keys that keep its replicas apart
#   applied ADDON SHA256 PODS hashes of what was applied last of an add-on: of its manifest, and of its pods then
#   workload ADDON …          its pods as they are to be now
# and the lines of kubeadm's configuration, of kube-proxy's, and of its kubeconfig.
FOUND='{{range .items}}{{$name := .metadata.name}}{{.kind}} {{or .metadata.namespace "-"}} {{$name}}{{"\n"}}'
FOUND+='{{if eq .kind "Node"}}marks {{$name}} {{.metadata.labels}} taints={{range .spec.taints}}{{.key}} {{end}}{{"\n"}}'
FOUND+="{{with .metadata.annotations}}{{if index . \"$DRAINED_BY\"}}drained {{\$name}}{{\"\n\"}}{{end}}{{end}}{{end}}"
FOUND+='{{if and (eq .kind "Deployment") (eq $name "coredns")}}coredns {{.spec.replicas}}{{with .spec.template.spec.affinity}}{{with .podAntiAffinity}}'
FOUND+='{{range .requiredDuringSchedulingIgnoredDuringExecution}} {{.topologyKey}}{{end}}{{end}}{{end}}{{"\n"}}{{end}}'
FOUND+='{{if and (eq .kind "ConfigMap") (eq $name "kube-proxy")}}{{index .data "kubeconfig.conf"}}{{"\n"}}'
FOUND+='{{index .data "config.conf"}}{{"\n"}}{{end}}'
FOUND+='{{if and (eq .kind "ConfigMap") (eq $name "kubeadm-config")}}{{.data.ClusterConfiguration}}{{"\n"}}{{end}}'
FOUND+="{{\$spec := .spec}}{{with .metadata.labels}}{{with index . \"$ADDON_LABEL\"}}{{if \$spec}}{{if \$spec.template}}"
FOUND+='workload {{.}} {{$spec.replicas}} {{$spec.template.spec}}{{"\n"}}{{end}}{{end}}{{end}}{{end}}'
FOUND+="{{with .metadata.annotations}}{{with index . \"$ADDON_APPLIED\"}}applied {{.}}{{\"\n\"}}{{end}}{{end}}{{end}}"
readonly FOUND

# Those of OBJECTS that this machine's kubeadm creates. Since 1.36 the API server's client certificate for kubelets is not in the
# group kubeadm:cluster-admins, so it needs a binding (kubeadm, app/phases/certs/certlist.go).
objects() {
	if [[ $(kubeadm version --output short) < v1.36 ]]; then
		grep -v ' kubeadm:apiserver-kubelet-client$' <<<"$OBJECTS"
	else
		echo "$OBJECTS"
	fi
}

# The objects and the Nodes as documents that name them and no more, for `kubectl get --filename`.
object_names() {
	local _ kind namespace name api
	while read -r _ kind namespace name; do
		case $kind in
		"") continue ;;
		Deployment | DaemonSet) api=apps/v1 ;;
		*Role*) api=rbac.authorization.k8s.io/v1 ;;
		*) api=v1 ;;
		esac
		[[ $namespace != - ]] || namespace=
		printf '%s\n' --- "apiVersion: $api" "kind: $kind" "metadata: {name: \"$name\", namespace: \"$namespace\"}"
	done < <(objects)
	for name in $KUBERNETES_NODES; do
		printf '%s\n' --- "apiVersion: v1" "kind: Node" "metadata: {name: \"$name\", namespace: \"\"}"
	done
	for name in $(known_addons); do
		printf '%s\n' --- "apiVersion: v1" "kind: ConfigMap" "metadata: {name: \"ha-lab-addon-$name\", namespace: \"kube-system\"}"
	done
	for name in $ADDONS; do cat "$HERE/addons/$name.yaml"; done
}

# The add-ons that the kit knows; lab.yaml asks for those in $ADDONS.
known_addons() {
	local file
	for file in "$HERE"/addons/*.yaml; do basename "$file" .yaml; done
}

# addon_problems FOUND: what is left to do about add-ons, as this answer of ask_cluster shows: `NAME REASON`, a line each.
addon_problems() {
	local name missing
	for name in $(known_addons); do
		if [[ " $ADDONS " != *" $name "* ]]; then
			[[ $'\n'$1$'\n' != *$'\n'"ConfigMap kube-system ha-lab-addon-$name"$'\n'* ]] ||
				echo "$name is in the cluster, and lab.yaml does not ask for it"
			continue
		fi
		missing=$(grep -vxFf <(echo "$1") "$HERE/addons/$name.objects" | cut -d' ' -f1,3 | paste -sd ',' | sed 's/,/, /g') || true
		if [[ -n $missing ]]; then
			echo "$name lacks its $missing"
		elif [[ $'\n'$1$'\n' != *$'\n'"applied $name $(hash_of "$HERE/addons/$name.yaml") $(hash_of_workloads "$name" <<<"$1")"$'\n'* ]]; then
			echo "$name is not what its manifest says"
		fi
	done
}

# hash_of_workloads NAME: of what ask_cluster has printed, the pods of this add-on as they are to be.
hash_of_workloads() { sed -n "s/^workload $1 //p" | sha256sum | cut -d' ' -f1; }

# One call of kubectl for everything that is asked of the cluster where nothing is missing. ask_cluster [as_super_admin]
ask_cluster() { object_names | "${1:-as_admin}" get --filename - --ignore-not-found --output "go-template=$FOUND"; }

# Without this binding admin.conf may do nothing, not even ask (kubeadm, phases/kubeconfig/kubeconfig.go). Nothing binds
# super-admin.conf, which only the machine of kubeadm init has: its group may do everything.
readonly ADMINISTRATORS=kubeadm:cluster-admins SUPER_ADMIN=/etc/kubernetes/super-admin.conf
readonly ADMINISTRATORS_BINDING="
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: '$ADMINISTRATORS'}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: '$ADMINISTRATORS'}]"

as_super_admin() { kubectl --kubeconfig "$SUPER_ADMIN" --request-timeout "$((10 * LAB_PATIENCE))s" "$@"; }

# refuses_administrator ANSWER: whether this answer to admin.conf is that it may not ask.
refuses_administrator() { [[ $1 == *Forbidden* ]]; }

# The Kubernetes version in a configuration of kubeadm's on standard input.
version_in() { sed -n 's/^kubernetesVersion: "\?\(v[0-9.]*\).*/\1/p'; }

# version_problem FOUND: why what kubeadm has recorded in the cluster is of a former Kubernetes version. A backup from before an
# upgrade has that. While one is under way, machines have another version than the lab's files.
version_problem() {
	local recorded version
	recorded=$(version_in <<<"$1")
	version=$(version_in <"$HERE/kubeadm-init.yaml")
	[[ -n $recorded && $recorded != "$version" && $(kubeadm version --output short) == "$version" ]] || return 0
	[[ $(printf '%s\n' "$recorded" "$version" | sort --version-sort | head -n 1) == "$version" ]] ||
		echo "kubeadm's configuration and its add-ons are those of Kubernetes ${recorded#v}"
}

# missing_objects FOUND: objects that are not in this answer of ask_cluster.
missing_objects() { awk 'NR == FNR { found[$0]; next } NF && !($2 " " $3 " " $4 in found)' <(echo "$1") <(objects); }
