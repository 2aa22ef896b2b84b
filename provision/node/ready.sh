#!/bin/bash
# Waits until every node that lab.yaml names is Ready, and every pod of the system with it, all in one look: what
# held a moment ago may be the word of a machine that has died since.
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/kubernetes.sh
source "$HERE/kubernetes.sh"

# A line for each node: its name, whether it is a control plane, its conditions, its taints.
NODES='{{range .items}}{{.metadata.name}}'
NODES+='{{range $label, $value := .metadata.labels}}'
NODES+='{{if eq $label "node-role.kubernetes.io/control-plane"}} control-plane{{end}}{{end}}'
NODES+='{{range .status.conditions}} {{.type}}={{.status}}{{end}}'
NODES+='{{range .spec.taints}} taint={{.key}}{{end}}{{"\n"}}{{end}}'
# A line for each pod: its name, its node, since when it is Ready or not, and with a startup probe how many seconds
# that waits, and since when.
PODS='{{range .items}}{{.metadata.namespace}}/{{.metadata.name}} {{.spec.nodeName}}'
PODS+='{{range .status.conditions}}{{if eq .type "Ready"}} Ready={{.status}}@{{.lastTransitionTime}}{{end}}{{end}}'
PODS+='{{range .spec.containers}}{{with .startupProbe}} delay={{.initialDelaySeconds}}{{end}}{{end}}'
PODS+='{{range .status.containerStatuses}}{{with .state.running}} started={{.startedAt}}{{end}}{{end}}{{"\n"}}{{end}}'
readonly NODES PODS
# Seconds after which a kubelet has taken back what it said too early.
readonly TAKEN_BACK=$((30 * LAB_PATIENCE))

nodes_ready() {
	local nodes
	nodes=$(as_admin get nodes --output "go-template=$NODES") || return 1
	each_ready
}

all_ready() {
	local nodes pods
	nodes=$(as_admin get nodes --output "go-template=$NODES") || return 1
	# A Job's pod that has ended is not Ready and never will be.
	pods=$(as_admin get pods --all-namespaces --field-selector=status.phase!=Succeeded,status.phase!=Failed \
		--output "go-template=$PODS") || return 1
	each_ready && flannel_up && untainted && pods_there && pods_ready
}

# every_node CONDITION WHY-NOT: in which NODE is the first without it.
every_node() {
	local name
	for name in $KUBERNETES_NODES; do
		grep -q "^$name .*\b$1" <<<"$nodes" || {
			echo "${2/NODE/$name}"
			return 1
		}
	done
}

each_ready() { every_node Ready=True "NODE is not Ready"; }

# A node is Ready once there is a configuration for its pods' networks, and flannel's pod once its program has
# begun: flannel itself says, in a condition of the node, that it is up.
flannel_up() {
	[[ -e $HERE/pod-network/manifest.yaml ]] ||
		every_node NetworkUnavailable=False "flannel is not up on NODE"
}

# The controller manager takes these taints away some moments after a node has become Ready, and until then
# pods do not go there.
untainted() {
	local tainted
	tainted=$(grep -E ' taint=node.kubernetes.io/(not-ready|unreachable)' <<<"$nodes" | cut -d' ' -f1)
	[[ -z $tainted ]] || {
		echo "still tainted as not ready: ${tainted//$'\n'/, }"
		return 1
	}
}

# What is not there yet is not among those that are not Ready.
pods_there() {
	local name part
	for name in $KUBERNETES_NODES; do
		grep -q "^kube-system/kube-proxy-[^ ]* $name " <<<"$pods" || {
			echo "kube-proxy is not on $name yet"
			return 1
		}
		grep -q "^$name .*\bcontrol-plane\b" <<<"$nodes" || continue
		for part in etcd kube-apiserver kube-controller-manager kube-scheduler; do
			grep -q "^kube-system/$part-$name $name " <<<"$pods" || {
				echo "the API does not know of $part on $name yet"
				return 1
			}
		done
	done
}

pods_ready() {
	local pod words waiting=
	while read -r pod words; do
		[[ $pod != kube-* ]] || { [[ $words == *Ready=True@* ]] && startup_passed "$words"; } || waiting+=" $pod"
	done <<<"$pods"
	[[ -z $waiting ]] || {
		echo "not ready:$waiting"
		return 1
	}
}

# A kubelet that is started anew beside a container not yet ten seconds old, as kubeadm init does it at its end,
# calls that Ready until the startup probe's turn has come, and then not Ready until its next one (decision 0009).
# No probe can have passed before its delay.
startup_passed() {
	local ready started
	[[ $1 =~ Ready=True@([^ ]+)\ delay=([0-9]+)\ started=([^ ]+) ]] || return 0
	ready=$(date -d "${BASH_REMATCH[1]}" +%s) started=$(date -d "${BASH_REMATCH[3]}" +%s)
	((ready - started >= BASH_REMATCH[2] || $(date +%s) - ready > TAKEN_BACK))
}

main() {
	local began
	began=$(date +%s%3N)
	wait_for 300 "all nodes to be Ready" nodes_ready
	echo "ha-lab: all nodes are Ready after $(($(date +%s%3N) - began)) ms"
	wait_for 300 "all nodes and system pods to be Ready" all_ready
	finish
}

main
