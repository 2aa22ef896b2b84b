# shellcheck shell=bash
# Configuration and certificates of an etcd that has machines of its own. kubeadm signs with etcd's CA, which was created on
# the host, as the cluster's. Its key is in memory while a run needs it, and no machine keeps it (kubeadm's page leaves it
# on one). Sourced by kubernetes.sh.

readonly ETCD_CA_KEY=/run/ha-lab/etcd-ca.key

# Where this machine's etcd runs: kubeadm's "stacked" topology on a control plane, or an etcd machine.
runs_etcd() { [[ ",$ETCD_ENDPOINTS," == *",https://$NODE_ADDRESS:2379,"* ]]; }

# Names as in $PKI, without .crt and .key.
case $NODE_ROLE in
etcd) readonly SIGNED_FOR_ETCD=(etcd/server etcd/peer etcd/healthcheck-client) ;;
*) readonly SIGNED_FOR_ETCD=(apiserver-etcd-client) ;;
esac

etcd_configuration() {
	if [[ $NODE_ROLE == etcd ]]; then echo "$HERE/kubeadm-etcd.yaml"; else echo "$HERE/kubeadm-etcd-client.yaml"; fi
}

# fill_etcd_configuration STATE MEMBER…: for the manifest of a member that begins a new etcd (STATE is "new"), or joins an
# existing one. It counts at a member's first start only (etcd, "Clustering Guide").
fill_etcd_configuration() {
	local text
	text=$(<"$HERE/kubeadm-etcd.yaml")
	text=${text//@INITIAL_CLUSTER_STATE@/$1}
	shift
	text=${text//@INITIAL_CLUSTER@/$(IFS=, && echo "$*")}
	(umask 077 && printf '%s\n' "$text" >"$FILLED")
}

# A signing that was killed leaves it, and it leads nowhere once the key is gone.
remove_link_to_etcd_ca_key() { [[ ! -L $PKI/etcd/ca.key ]] || rm "$PKI/etcd/ca.key"; }

# With another CA all that the former one has signed is useless.
install_etcd_ca() {
	local name
	remove_link_to_etcd_ca_key
	place 644 "$PKI/etcd/ca.crt" <"$HERE/etcd-ca.crt" || return 0
	for name in "${SIGNED_FOR_ETCD[@]}"; do rm -f "$PKI/$name".{crt,key}; done
}

# sign_for_etcd NAME…: kubeadm makes these certificates, in the place of those that are there. Its phases read the CA's key
# beside the CA.
sign_for_etcd() {
	local name
	[[ -s $ETCD_CA_KEY ]] ||
		die "$NODE_NAME needs a certificate of etcd's CA, and was not given its key for this run: \`./inv up\` does so"
	ln -sfn "$ETCD_CA_KEY" "$PKI/etcd/ca.key"
	for name; do
		rm -f "$PKI/$name".{crt,key}
		kubeadm init phase certs "${name/\//-}" --config "$(etcd_configuration)"
	done
	remove_link_to_etcd_ca_key
	# shellcheck disable=SC2034  # for `finish`
	changed=yes
}

# What an API server needs of an etcd on other machines, in $PKI. kubeadm uploads it for the control planes that join.
install_etcd_client() {
	install_etcd_ca
	[[ -z $(pair_problem apiserver-etcd-client) ]] || sign_for_etcd apiserver-etcd-client
}
