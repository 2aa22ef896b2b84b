# shellcheck shell=bash
# shellcheck disable=SC2034  # what a sourced file sets, others use
# The objects that kubeadm init creates in the cluster, and which of them are missing. control-plane-init.sh creates
# those again, unfinished.sh reports them. Sourced after kubernetes.sh.

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
# What is asked of these objects and of the lab's Nodes: KIND NAMESPACE NAME of each that the cluster has, and with it
#   drained NAME              a Node that the kit has cordoned
#   marks NAME LABELS taints=KEYS
#   coredns REPLICAS KEY…     the topology keys that keep its replicas apart
# and the lines of kube-proxy's kubeconfig.
FOUND='{{range .items}}{{$name := .metadata.name}}{{.kind}} {{or .metadata.namespace "-"}} {{$name}}{{"\n"}}'
FOUND+='{{if eq .kind "Node"}}marks {{$name}} {{.metadata.labels}} taints={{range .spec.taints}}{{.key}} {{end}}{{"\n"}}'
FOUND+="{{with .metadata.annotations}}{{if index . \"$DRAINED_BY\"}}drained {{\$name}}{{\"\n\"}}{{end}}{{end}}{{end}}"
FOUND+='{{if eq .kind "Deployment"}}coredns {{.spec.replicas}}{{with .spec.template.spec.affinity}}{{with .podAntiAffinity}}'
FOUND+='{{range .requiredDuringSchedulingIgnoredDuringExecution}} {{.topologyKey}}{{end}}{{end}}{{end}}{{"\n"}}{{end}}'
FOUND+='{{if and (eq .kind "ConfigMap") (eq $name "kube-proxy")}}{{index .data "kubeconfig.conf"}}{{"\n"}}{{end}}{{end}}'
readonly FOUND

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
	done <<<"$OBJECTS"
	for name in $KUBERNETES_NODES; do
		printf '%s\n' --- "apiVersion: v1" "kind: Node" "metadata: {name: \"$name\", namespace: \"\"}"
	done
}

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

# missing_objects FOUND: lines of OBJECTS that are not in this answer of ask_cluster.
missing_objects() { awk 'NR == FNR { found[$0]; next } NF && !($2 " " $3 " " $4 in found)' <(echo "$1") <(echo "$OBJECTS"); }
