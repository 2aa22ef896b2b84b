#!/bin/bash
# One stage of a rotation of the cluster's CA, on this machine (kubernetes.io, "Manual Rotation of CA Certificates"). The
# kit's ca.crt lists the CAs that are trusted, and the first of them signs: the old and the new one, then the new and the
# old one, then the new one. What is done already is left alone, so that an interrupted stage can be repeated.
#
#   rotate-ca.sh --stdin       on standard input: ca.key, the key of the first CA (control planes only), and kubelet.pem, a
#                              client certificate for this node's kubelet, signed by that CA
#   rotate-ca.sh --restart     restarts the kubelet of a control plane if it has to read what --stdin has changed
#   rotate-ca.sh --kubelet     removes a kubelet's serving certificate that another CA has signed; the kubelet requests one
#   rotate-ca.sh --objects [--restart]     on one control plane, once all machines have it: updates the cluster's objects
#
# --restart  also restarts the kit's pods, since many programs read the CA only when they start
#
# The static pods are restarted by renew-certificates.sh, before the kubelet: one that has just started does not end a static
# pod whose manifest is removed before its volumes are mounted, but waits two minutes for them (seen with 1.36.3).
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/kubernetes.sh
source "$HERE/kubernetes.sh"
# shellcheck source=provision/node-files.sh
source "$HERE/node-files.sh"

readonly SIGNING=$PKI/ca-signing.crt GIVEN=/run/ha-lab/kubelet.pem
readonly OUTDATED=/run/ha-lab/kubelet-outdated # exists until the kubelet was restarted
readonly SERVING=/var/lib/kubelet/pki/kubelet-server-current.pem
readonly NAMESPACES=(kube-system kube-flannel local-path-storage)

first_ca() { sed '/-END CERTIFICATE-/q' "$HERE/ca.crt"; }
trusts_two() { (($(grep -c -- '-BEGIN CERTIFICATE-' "$HERE/ca.crt") > 1)); }

# signed_by_first: whether the first CA has signed the certificate on standard input, whatever its dates.
signed_by_first() { openssl verify -no_check_time -CAfile <(first_ca) /dev/stdin >/dev/null 2>&1; }

# trust_in KUBECONFIG: whether that changed it.
trust_in() {
	local data
	data=$(base64 -w 0 "$HERE/ca.crt")
	[[ -s $1 ]] && place 600 "$1" < <(sed "s#^\( *certificate-authority-data: \).*#\1$data#" "$1")
}

# The controller manager signs for kubelets, and accepts no file with two certificates (pkg/controller/certificates/signer,
# ca_provider.go); --root-ca-file and --client-ca-file have to have both.
signing_certificate() {
	local file=$PKI/ca.crt manifest=$MANIFESTS/kube-controller-manager.yaml new=/etc/kubernetes/kube-controller-manager.yaml.new
	if trusts_two; then
		file=$SIGNING
		place 644 "$file" < <(first_ca) || true
	fi
	if ! grep -q -- "--cluster-signing-cert-file=$file\$" "$manifest"; then
		# Not in the folder of the manifests: the kubelet would take a half-written file for another pod.
		place 600 "$new" < <(sed "s#\(--cluster-signing-cert-file=\).*#\1$file#" "$manifest") || true
		mv "$new" "$manifest"
		changed=yes
	fi
	[[ $file == "$SIGNING" ]] || rm -f "$SIGNING"
}

# The certificates of a control plane that the cluster's CA signs, and the first CA has not signed yet: a name per line.
signed_by_another() {
	local name text value
	for name in apiserver apiserver-kubelet-client; do
		signed_by_first <"$PKI/$name.crt" || echo "$name"
	done
	for name in "${CONTROL_PLANE_KUBECONFIGS[@]}" super-admin; do
		[[ -s /etc/kubernetes/$name.conf ]] || continue
		read_text "/etc/kubernetes/$name.conf" || true
		value_of client-certificate-data
		base64 -d <<<"$value" | signed_by_first || echo "$name.conf"
	done
}

control_plane() {
	local name found
	place 600 "$PKI/ca.key" </run/ha-lab/ca.key || true
	signing_certificate
	found=$(signed_by_another)
	if [[ -n $found ]]; then
		renew_all_certificates
		changed=yes
		found=$(signed_by_another)
		[[ -z $found ]] || die "kubeadm has renewed the certificates, but the first CA has not signed ${found//$'\n'/, }"
	fi
	# kubeadm has put only the first CA into them (phases/certs/renewal, readwriter.go).
	for name in "${CONTROL_PLANE_KUBECONFIGS[@]}" super-admin; do
		trust_in "/etc/kubernetes/$name.conf" || true
	done
}

# The kubelet renews its certificate before it ends, not because of another CA. It reads this one when it starts.
kubelet_client() {
	local file
	! signed_by_first <"$KUBELET_CERTIFICATE" || return 1
	file=/var/lib/kubelet/pki/kubelet-client-$(date +%Y-%m-%d-%H-%M-%S).pem
	install -m 600 "$GIVEN" "$file"
	ln -sfn "$file" "$KUBELET_CERTIFICATE.new"
	mv -T "$KUBELET_CERTIFICATE.new" "$KUBELET_CERTIFICATE"
}

# A kubelet without one requests another from the cluster, which kubelet-certificates.sh approves. The caller makes sure
# that every controller manager signs with the first CA.
kubelet_serving() {
	[[ -e $SERVING ]] && ! signed_by_first <"$SERVING" || return 0
	rm -f "$(readlink -f "$SERVING")" "$SERVING"
	systemctl restart kubelet
	changed=yes
}

machine() {
	place 644 "$PKI/ca.crt" <"$HERE/ca.crt" || true
	[[ $NODE_ROLE != control-plane ]] || control_plane
	! trust_in "$KUBELET" || touch "$OUTDATED"
	! kubelet_client || touch "$OUTDATED"
	[[ $NODE_ROLE == control-plane ]] || restart_outdated_kubelet
}

restart_outdated_kubelet() {
	[[ -e $OUTDATED ]] || return 0
	systemctl restart kubelet
	rm "$OUTDATED"
	changed=yes
}

# In the ConfigMap kube-root-ca.crt of each namespace, which is mounted in pods.
published() {
	local said
	said=$(as_admin --namespace kube-system get configmap kube-root-ca.crt --output 'jsonpath={.data.ca\.crt}') || return 1
	[[ $said == "$(<"$HERE/ca.crt")" ]] || {
		echo "the controller manager has not published the CA yet"
		return 1
	}
}

# For machines that join with a token.
cluster_info() {
	local data
	data=$(base64 -w 0 "$HERE/ca.crt")
	as_admin --namespace kube-public get configmap cluster-info --output yaml |
		sed "s#^\( *certificate-authority-data: \).*#\1$data#" | as_admin replace --filename - >/dev/null
}

# DaemonSets and Deployments in the kit's namespaces: NAMESPACE KIND/NAME, a line each.
workloads() {
	local namespace
	for namespace in "${NAMESPACES[@]}"; do
		as_admin --namespace "$namespace" get daemonsets,deployments --output name | sed "s#^#$namespace #"
	done
}

rolled_out() {
	local namespace name said
	while read -r namespace name; do
		said=$(as_admin --namespace "$namespace" rollout status "$name" --watch=false) || return 1
		[[ $said == *"successfully rolled out"* ]] || {
			echo "$said"
			return 1
		}
	done <<<"$1"
}

objects() {
	local found namespace name
	wait_for 120 "the controller manager to publish the CA" published
	cluster_info
	if [[ ${1:-} == --restart ]]; then
		found=$(workloads)
		while read -r namespace name; do
			as_admin --namespace "$namespace" rollout restart "$name" >/dev/null
		done <<<"$found"
		wait_for 240 "the restarted pods to be available" rolled_out "$found"
	fi
	changed=yes
}

main() {
	exclusively
	trap 'rm -f /run/ha-lab/ca.key "$GIVEN"' EXIT
	case ${1:-} in
	--stdin)
		read_secrets
		machine
		;;
	--restart) restart_outdated_kubelet ;;
	--kubelet) kubelet_serving ;;
	--objects) objects "${@:2}" ;;
	*) die "usage: rotate-ca.sh --stdin | --restart | --kubelet | --objects [--restart]" ;;
	esac
	finish
}

main "$@"
