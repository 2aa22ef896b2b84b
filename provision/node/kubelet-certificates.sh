#!/bin/bash
# Serving certificates of the kubelets (kubernetes.io, "TLS bootstrapping": serverTLSBootstrap). Approves the requests of
# this lab's own nodes, by the rule in request_problem, and waits until each kubelet has a certificate that the cluster's CA
# has signed. A request that the rule does not fit is left as it is, and the reason is shown.
#
# A bare `vagrant up` starts this in the background on the first control plane, so it waits for all nodes first.
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/kubernetes.sh
source "$HERE/kubernetes.sh"

readonly SIGNER=kubernetes.io/kubelet-serving
# Of each request that was neither approved nor denied, its name, and then what the rule is about: a line each, ended by
# `end`. Quoted as in Go, so that no value reaches into another line.
readonly REQUESTS='{{range .items}}{{if not .status.conditions}}name {{.metadata.name}}{{"\n"}}username {{printf "%q" .spec.username}}{{"\n"}}groups {{printf "%q" .spec.groups}}{{"\n"}}usages {{printf "%q" .spec.usages}}{{"\n"}}request {{.spec.request}}{{"\n"}}end{{"\n"}}{{end}}{{end}}'
# All that openssl shows of a request which fits, besides its subject: it has no attributes and no other extensions.
readonly SHOWN=no_header,no_version,no_subject,no_pubkey,no_sigdump,no_attributes

address_of() { awk -v name="$1" '$2 == name { print $1 }' "$HERE/hosts"; }

# request_problem USERNAME GROUPS USAGES REQUEST: prints why this request is not approved; nothing where the kubelet of a
# node of this lab asks for itself: that node's own name and address, and nothing else.
request_problem() {
	local name address request said
	[[ $1 =~ ^\"system:node:([a-z0-9-]+)\"$ && " $KUBERNETES_NODES " == *" ${BASH_REMATCH[1]} "* ]] || {
		echo "it comes from $1, which is no node of this lab"
		return
	}
	name=${BASH_REMATCH[1]}
	[[ $2 == *\"system:nodes\"* ]] || {
		echo "it comes from no member of the group system:nodes (but of $2)"
		return
	}
	[[ $3 == '["digital signature" "server auth"]' || $3 == '["digital signature" "key encipherment" "server auth"]' ]] || {
		echo "it asks for a certificate for $3, and not only for a server's"
		return
	}
	request=$(base64 -d <<<"$4" 2>/dev/null)
	said=$(openssl req -config /dev/null -noout -verify <<<"$request" 2>&1) || true
	# Not every version says so with its exit code.
	[[ $said == *"verify OK" ]] || {
		echo "it can't be read, or is not signed with its own key"
		return
	}
	said=$(openssl req -config /dev/null -noout -subject -nameopt RFC2253 <<<"$request")
	[[ $said == "subject=CN=system:node:$name,O=system:nodes" ]] || {
		echo "its subject is not that of $name: ${said#subject=}"
		return
	}
	address=$(address_of "$name")
	said=$(openssl req -config /dev/null -noout -text -reqopt "$SHOWN" <<<"$request" 2>/dev/null | awk '{ $1 = $1; print }' | paste -sd '|')
	case $said in
	"Requested Extensions:|X509v3 Subject Alternative Name:|DNS:$name, IP Address:$address" | \
		"Requested Extensions:|X509v3 Subject Alternative Name:|IP Address:$address") ;;
	*) echo "it is not for $name and $address alone: ${said##*|}" ;;
	esac
}

# Approves what the rule fits; prints the others, with the reason.
approve_requests() {
	local key value name="" username="" groups="" usages="" request="" problem fitting=()
	while read -r key value; do
		case $key in
		name) name=$value ;;
		username) username=$value ;;
		groups) groups=$value ;;
		usages) usages=$value ;;
		request) request=$value ;;
		end)
			problem=$(request_problem "$username" "$groups" "$usages" "$request")
			if [[ -z $problem ]]; then
				fitting+=("$name")
			else
				echo "the request $name is not approved: $problem"
			fi
			;;
		esac
	done < <(as_admin get certificatesigningrequests --field-selector "spec.signerName=$SIGNER" --output "go-template=$REQUESTS")
	[[ ${#fitting[@]} == 0 ]] || {
		as_admin certificate approve "${fitting[@]}" >/dev/null
		changed=yes
	}
}

# Which kubelets do not serve with a certificate of this CA for their address, and why: a line each. One process, since all
# answer at once; what they answer does not matter.
without_certificate() {
	local name words=()
	for name in $KUBERNETES_NODES; do words+=(--output /dev/null "https://$(address_of "$name"):10250/healthz"); done
	curl --silent --parallel --parallel-immediate --max-time $((5 * LAB_PATIENCE)) --cacert "$HERE/ca.crt" \
		--write-out '%{exitcode} %{url} %{errormsg}\n' "${words[@]}" | sed -n '/^0 /!s/^[0-9]* //p' || true
}

all_have_certificates() {
	local lacking
	lacking=$(without_certificate)
	[[ -n $lacking ]] || return 0
	echo "$lacking"
	approve_requests
	return 1
}

main() {
	all_nodes_joined >/dev/null 2>&1 || wait_for 1800 "all nodes to join" all_nodes_joined
	# A kubelet whose certificate has a tenth to a third of its life left asks for the next one (kubernetes.io, "Certificate
	# Rotation"), and again until it is approved.
	approve_requests
	all_have_certificates >/dev/null 2>&1 || {
		wait_for 120 "each kubelet to serve with a certificate that the cluster's CA has signed" all_have_certificates
		changed=yes
	}
	finish
}

main
