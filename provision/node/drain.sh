#!/bin/bash
# Drains a node from this control plane: cordons it and evicts its pods, within the limits of their
# PodDisruptionBudgets (kubernetes.io, "Safely Drain a Node"). DaemonSets' and static pods stay, since nothing would
# run them elsewhere.
#
#   drain.sh NAME [--force] [--timeout SECONDS]
#   drain.sh NAME --undo
#
# --force    also deletes pods that have no controller. No controller starts those again, so without it the script
#            refuses and names them. (kubeadm's own page, "Remove the node", uses --force always.)
# --undo     the node accepts pods again, unless a user has cordoned it.
# --timeout  how long it tries, 120 s by default; longer where machines are emulated.
#
# When it fails, the node accepts pods again unless a user has cordoned it before. An annotation marks the kit's own
# cordon, so that the next `up` reverts that of a killed run (control-plane-init.sh). A node that the cluster does
# not have, or that is cordoned and has no pods to evict, is unchanged.
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/kubernetes.sh
source "$HERE/kubernetes.sh"

# A line for each pod: NAMESPACE/NAME PHASE [KIND], the kind of its controller.
PODS='{{range .items}}{{.metadata.namespace}}/{{.metadata.name}} {{or .status.phase "Unknown"}}'
PODS+='{{range .metadata.ownerReferences}}{{if .controller}} {{.kind}}{{end}}{{end}}{{"\n"}}{{end}}'
# A line for each budget that allows no eviction: NAME HEALTHY NEEDED SELECTOR, as kubectl's --selector has it.
BUDGETS='{{range .items}}{{if and .status.expectedPods (not .status.disruptionsAllowed)}}'
BUDGETS+='{{.metadata.name}} {{or .status.currentHealthy 0}} {{or .status.desiredHealthy 0}} '
BUDGETS+='{{range $key, $value := .spec.selector.matchLabels}}{{$key}}={{$value}},{{end}}'
BUDGETS+='{{range .spec.selector.matchExpressions}}{{if eq .operator "DoesNotExist"}}!{{end}}{{.key}}'
BUDGETS+='{{if .values}} {{if eq .operator "In"}}in{{else}}notin{{end}} '
BUDGETS+='({{range $index, $value := .values}}{{if $index}},{{end}}{{$value}}{{end}}){{end}},{{end}}'
BUDGETS+='{{"\n"}}{{end}}{{end}}'
READY='{.status.conditions[?(@.type=="Ready")].status}'
readonly PODS BUDGETS READY RETRY=5 # seconds, as kubectl waits between two evictions of a pod

name="" force=no undo=no timeout=120 cordoned=no # cordoned: by the kit, and this run has not succeeded

pods() { as_admin get pods --all-namespaces --field-selector "spec.nodeName=$name" --output "go-template=$PODS"; }
# The control plane's static pods have their Node as controller.
evictable() { awk '$3 != "DaemonSet" && $3 != "Node" { print $1 }' <<<"$1"; }
without_controller() { awk 'NF == 2 && $2 != "Succeeded" && $2 != "Failed" { print $1 }' <<<"$1"; }
comma_separated() { sed -z 's/\n$//; s/\n/, /g' <<<"$1"; }

# blocking_budgets PODS: a line for each budget that allows no eviction and selects one of these pods.
blocking_budgets() {
	local namespace budgets budget healthy needed selector selected
	while read -r namespace; do
		budgets=$(as_admin --namespace "$namespace" get poddisruptionbudgets --output "go-template=$BUDGETS") || return 1
		while read -r budget healthy needed selector; do
			[[ -n $budget ]] || continue
			selected=$(as_admin --namespace "$namespace" get pods --selector "${selector%,}" \
				--field-selector "spec.nodeName=$name" --output name </dev/null) || return 1
			[[ -z $selected ]] || echo "$namespace/$budget ($healthy healthy pods, $needed needed)"
		done <<<"$budgets"
	done < <(cut -d/ -f1 <<<"$1" | sort -u)
}

give_up() {
	local left budgets why
	left=$(pods) || die "$name: not drained after $timeout s, and the API can't be asked which pods are left"
	left=$(evictable "$left")
	if ! budgets=$(blocking_budgets "$left"); then
		why="the API can't be asked for their PodDisruptionBudgets"
	elif [[ -n $budgets ]]; then
		why="blocked by PodDisruptionBudget $(comma_separated "$budgets"): add replicas to what it protects, or change it"
	else
		why="no PodDisruptionBudget blocks them, see kubectl's messages above"
	fi
	die "$name: not drained after $timeout s. Pods still on it: $(comma_separated "$left"); $why. Then repeat the command"
}

# Also when the caller has gone and nothing can be printed.
restore() {
	trap '' PIPE
	[[ $cordoned == yes ]] || return 0
	log "$name accepts pods again" || true
	if as_admin uncordon "$name" >/dev/null; then
		as_admin annotate node "$name" "$DRAINED_BY-" >/dev/null || true # then the next `up` removes it
	else
		log "$name is still cordoned: \`kubectl uncordon $name\` ends that, and so does the next \`./inv up\`"
	fi
}

# A node whose kubelet has stopped reporting (kubernetes.io, "Node status"). It can't confirm that a pod has ended, so that
# is not waited for.
is_silent() { [[ $(as_admin get node "$name" --output "jsonpath=$READY") == Unknown ]]; }

drain() {
	local deadline=$((SECONDS + timeout)) left=$timeout flags=(--ignore-daemonsets --delete-emptydir-data) once silent
	[[ $force == no ]] || flags+=(--force)
	# kubectl repeats what a budget forbids, but ends at any other error, which may be a transient one. A kubelet that has
	# just stopped is noticed after 40 s (node-monitor-grace-period), so once more after 60 s.
	until
		silent=()
		! is_silent || silent=(--skip-wait-for-delete-timeout 1)
		once=$((left < 60 * LAB_PATIENCE ? left : 60 * LAB_PATIENCE))
		with_notices "the pods of $name to be evicted" as_admin drain "$name" "${flags[@]}" "${silent[@]}" --timeout "${once}s"
	do
		((SECONDS + RETRY < deadline)) || give_up
		sleep "$RETRY"
		left=$((deadline - SECONDS))
		((left > 0)) || left=1 # 0 would have no limit
	done
}

end_drain() {
	log "$name accepts pods again"
	as_admin uncordon "$name" >/dev/null
	as_admin annotate node "$name" "$DRAINED_BY-" >/dev/null
	changed=yes
}

main() {
	local found unschedulable by present bare
	name=${1:-}
	[[ $name =~ ^[a-z0-9] ]] || die "usage: drain.sh NAME [--force] [--timeout SECONDS]"
	shift
	while (($#)); do
		case $1 in
		--force) force=yes ;;
		--undo) undo=yes ;;
		--timeout)
			[[ ${2:-} =~ ^[1-9][0-9]*$ ]] || die "--timeout needs a number of seconds"
			timeout=$2
			shift
			;;
		*) die "drain.sh does not know the option $1" ;;
		esac
		shift
	done
	timeout=$((timeout * LAB_PATIENCE))
	exclusively
	found=$(as_admin get node "$name" --ignore-not-found --output name)
	[[ -n $found ]] || {
		finish
		return
	}
	unschedulable=$(as_admin get node "$name" --output 'jsonpath={.spec.unschedulable}')
	by=$(as_admin get node "$name" --output "jsonpath={.metadata.annotations.$DRAINED_BY}")
	if [[ $undo == yes ]]; then
		[[ -z $by ]] || end_drain
		finish
		return
	fi
	present=$(pods)
	bare=$(without_controller "$present")
	[[ $force == yes || -z $bare ]] ||
		die "$name has pods without a controller, which no controller would start again: $(comma_separated "$bare")." \
			"Delete those that may go (\`kubectl delete pod --namespace NAMESPACE NAME\`), then repeat the command"
	if [[ $unschedulable != true || -n $(evictable "$present") ]]; then
		if [[ $unschedulable != true || -n $by ]]; then
			cordoned=yes
			trap restore EXIT
			as_admin annotate node "$name" "$DRAINED_BY=up" --overwrite >/dev/null
		fi
		drain
		cordoned=no
		changed=yes
	fi
	finish
}

main "$@"
