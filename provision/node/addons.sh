#!/bin/bash
# The add-ons that lab.yaml asks for, from the first control plane; and those that it no longer asks for are removed.
# An add-on is applied where the cluster differs from its manifest, or its pods were changed since.
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/kubernetes.sh
source "$HERE/kubernetes.sh"
# shellcheck source=provision/cluster-objects.sh
source "$HERE/cluster-objects.sh"

require_image() {
	local missing
	missing=$(missing_image "$HERE/addons/$1.yaml")
	[[ -z $missing ]] ||
		die "$1 can't run here: $NODE_NAME has no image $missing, since its golden machine is of an earlier version of the" \
			"kit. \`./inv replace NAME\` makes one machine after the other again, with the image; or take $1 out of" \
			"addons in lab.yaml"
}

# note_applied NAME [SHA256 PODS]: the ConfigMap that says that this add-on is there, and what was applied last.
note_applied() {
	as_admin apply --filename - <<-END
		apiVersion: v1
		kind: ConfigMap
		metadata:
		  name: ha-lab-addon-$1
		  namespace: kube-system
		  annotations: {$ADDON_APPLIED: "$*"}
	END
}

apply_addon() {
	local file=$HERE/addons/$1.yaml found
	require_image "$1"
	note_applied "$1"
	apply_manifest "$file" "$1"
	found=$(ask_cluster)
	note_applied "$1" "$(hash_of "$file")" "$(hash_of_workloads "$1" <<<"$found")"
	changed=yes
}

# Claims whose data only this add-on looks after, NAMESPACE/NAME each.
claims_of() {
	[[ $1 != local-path ]] ||
		as_admin get persistentvolumes --output \
			'go-template={{range .items}}{{if eq (or .spec.storageClassName "") "local-path"}}{{with .spec.claimRef}}{{.namespace}}/{{.name}}{{"\n"}}{{end}}{{end}}{{end}}'
}

# Those of a `verify` that has just ended are gone in some seconds.
readonly OF_VERIFY=ha-lab-verify-

none_of_verify() {
	local claims
	claims=$(claims_of "$1") || return 1
	[[ $'\n'$claims != *$'\n'"$OF_VERIFY"* ]] || {
		echo "$claims"
		return 1
	}
}

remove_addon() {
	local file=$HERE/addons/$1.yaml claims
	claims=$(claims_of "$1" | sed "/^$OF_VERIFY/d")
	[[ -z $claims ]] ||
		die "$1 was not removed, since these claims have volumes of it: $(paste -sd ' ' <<<"$claims"). Without it, nothing" \
			"would ever remove their data from the nodes. Delete the claims first, which deletes their data; or keep $1" \
			"in addons of lab.yaml"
	(wait_for 60 "the volumes of a \`verify\` to be gone" none_of_verify "$1") || log "they are left behind"
	log "removing $1"
	as_admin delete --filename "$file" --ignore-not-found --wait=false
	wait_for 120 "what is removed of $1 to be gone" nothing_leaves "$file"
	as_admin --namespace kube-system delete configmap "ha-lab-addon-$1" --ignore-not-found
	changed=yes
}

main() {
	local found name problems
	exclusively
	wait_for 60 "this control plane's API server" own_api_server_ready
	found=$(ask_cluster)
	problems=$(addon_problems "$found")
	for name in $(known_addons); do
		if [[ $'\n'$problems != *$'\n'"$name "* ]]; then
			continue
		elif [[ " $ADDONS " == *" $name "* ]]; then
			apply_addon "$name"
		else
			remove_addon "$name"
		fi
	done
	finish
}

main
