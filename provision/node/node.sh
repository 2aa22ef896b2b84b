#!/bin/bash
# Every Kubernetes node, before kubeadm: its names and routes, its resolver for pods, and the kubelet's
# machine-specific configuration. An etcd machine is no node of the cluster, and needs none of what is for pods.
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/kubernetes.sh
source "$HERE/kubernetes.sh"
# shellcheck source=provision/node-files.sh
source "$HERE/node-files.sh"

names_and_routes() {
	place 644 /etc/ha-lab/network.env <"$HERE/network.env" && restart=yes
	place 644 /etc/ha-lab/hosts <"$HERE/hosts" && restart=yes
	grep -qsx "$NODE_ADDRESS $NODE_NAME" /etc/hosts || restart=yes
	systemctl is-active --quiet ha-lab-network || restart=yes
	systemctl is-active --quiet ha-lab-dns || restart=yes
	[[ ${restart:-no} == yes ]] || return 0
	systemctl restart ha-lab-network
	systemctl restart ha-lab-dns
	changed=yes
}

# What decides how the kernel treats pods' packets. A setting that is missing has no value, and the module
# br_netfilter makes the second one.
kernel_has_settings() {
	[[ $(sysctl --values net.ipv4.ip_forward net.bridge.bridge-nf-call-iptables 2>/dev/null) == $'1\n1' ]]
}

kernel_settings() {
	! kernel_has_settings || return 0
	sysctl --quiet --load=/etc/sysctl.d/90-kubernetes.conf || true
	changed=yes
	kernel_has_settings ||
		die "net.ipv4.ip_forward and net.bridge.bridge-nf-call-iptables must be 1 here, and are not (sysctl's own words" \
			"are above). If the second one is missing, the kernel lacks the module br_netfilter: \`./inv up --yes\`" \
			"loads it on a host whose machines are containers, \`sudo modprobe br_netfilter\` in a virtual machine"
}

keys_for_root_only() {
	local open
	open=$(open_keys)
	[[ -n $open ]] || return 0
	# Paths without spaces, a line each.
	# shellcheck disable=SC2086
	chmod 600 $open
	changed=yes
}

# A worker that is pointed at one API server loses the cluster with it. The kubelet of a control plane may have its own
# (kubeadm's ControlPlaneKubeletLocalMode), and its admin.conf is for the scripts that know whose cluster it is.
kubelet_server() {
	[[ $NODE_ROLE == control-plane ]] || ! point_at_load_balancer "$KUBELET" || systemctl try-restart kubelet
}

# containerd's is systemd's, too.
cgroup_driver() {
	[[ -s $KUBELET_SETTINGS ]] && ! grep -qx "cgroupDriver: *[\"']\?systemd[\"']\? *" "$KUBELET_SETTINGS" || return 0
	! place 644 "$KUBELET_SETTINGS" < <(sed 's/^cgroupDriver: .*/cgroupDriver: systemd/' "$KUBELET_SETTINGS") ||
		systemctl try-restart kubelet
}

# At another address kubectl logs and exec, and the pod network, do not find this node.
node_address() {
	[[ -s $KUBELET_FLAGS ]] || return 0
	! place 644 "$KUBELET_FLAGS" < <(sed "s/--node-ip=[^ \"]*/--node-ip=$NODE_ADDRESS/" "$KUBELET_FLAGS") ||
		systemctl try-restart kubelet
}

# kubelet's drop-in configuration (kubernetes.io, "Kubelet Configuration Directory Merging").
kubelet_drop_in() {
	place 644 /etc/ha-lab/resolv.conf < <(echo "nameserver $NODE_ADDRESS") || true
	! place 644 /etc/kubernetes/kubelet.conf.d/10-node.conf < <(own_kubelet_settings) || [[ ! -s $KUBELET_SETTINGS ]] ||
		systemctl try-restart kubelet
}

own_kubelet_settings() {
	echo "apiVersion: kubelet.config.k8s.io/v1beta1"
	echo "kind: KubeletConfiguration"
	if [[ $NODE_ROLE != etcd ]]; then
		echo "resolvConf: /etc/ha-lab/resolv.conf"
		# Its serving certificate is signed by the cluster's CA; kubelet-certificates.sh approves the request.
		echo "serverTLSBootstrap: true"
	fi
	# Kubernetes 1.35 and later refuse a cgroup v1 host by default; only for such hosts.
	[[ -e /sys/fs/cgroup/cgroup.controllers ]] || echo "failCgroupV1: false"
}

# A kubelet keeps the certificate that it has, no matter who signed it, and asks for one if it has none. It need not serve
# what is in the file, or may not serve now, so both are asked. curl's exit code 60: the certificate is not of this CA, or not
# for this address, or has expired.
serving_certificate() {
	local current=/var/lib/kubelet/pki/kubelet-server-current.pem code=0
	[[ -e $current || -L $current ]] || return 0
	curl --silent --max-time $((3 * LAB_PATIENCE)) --cacert "$HERE/ca.crt" --output /dev/null "https://$NODE_ADDRESS:10250/healthz" ||
		code=$?
	((code == 60)) || ! openssl verify -CAfile "$HERE/ca.crt" -verify_ip "$NODE_ADDRESS" "$current" >/dev/null 2>&1 || return 0
	repairs "the kubelet's serving certificate was not one that the cluster's CA has signed for this machine"
	rm -f "$(readlink -f "$current")" "$current"
	systemctl try-restart kubelet
	changed=yes
}

# What the host's environment names, without anything of the lab: see lab/workspace/render/credentials.py. kubeadm gets none of
# it, or it would put the proxy into the manifests of the control plane.
proxies() {
	local given=/run/ha-lab/proxy.env kept=/etc/ha-lab/proxy.env
	if [[ -s $given ]]; then
		place 600 "$kept" <"$given" || return 0
	else
		[[ -e $kept ]] || return 0
		rm "$kept"
		changed=yes
	fi
	systemctl try-restart containerd kubelet
}

# If a node's subnet has changed, as after a manual `kubeadm reset` and a new join, no new pod starts while cni0 has the old address,
# and running pods have addresses that now belong to another node. A bridge without an address is one that is being made for
# a pod right now.
former_pod_network() {
	local bridge now
	bridge=$(ip -brief -4 address show dev cni0 2>/dev/null | awk '{ print $3 }') || return 0
	now=$(subnet_of_pods)
	if nothing_of_a_cluster; then
		remove_pod_network
	elif [[ -n $bridge && -n $now && $bridge != "$now" ]]; then
		repairs "the pods' bridge had $bridge, which is no longer this node's subnet"
		stop_sandboxes_with_addresses # first: without the bridge, the next run would not know
		ip link delete cni0
	else
		return 0
	fi
	changed=yes
}

# After `ip link delete cni0` running pods have no network: the CNI plugin creates the bridge again for a new pod, and
# attaches that one only. Each pod's interface leads into a namespace that CNI has made. Pods of other networks, whose
# configuration containerd takes because it comes first, need no bridge, also where flannel's file is still there.
pods_without_bridge() {
	local subnet pods pod
	network_is_flannel || return 0
	subnet=$(subnet_of_pods)
	pods=$(ip -oneline link show type veth | awk '/ link-netns cni-/ && !/ master / { sub("@.*", "", $2); print $2 }')
	[[ -n $subnet && -n $pods ]] || return 0
	ip link add cni0 type bridge 2>/dev/null || true # a plugin may be making it
	ip address replace "$subnet" dev cni0
	ip link set cni0 up
	for pod in $pods; do
		ip link set "$pod" master cni0
		ip link set "$pod" type bridge_slave hairpin on # as the plugin's hairpinMode
	done
	repairs "pods were attached to no bridge"
	changed=yes
}

# The interface to pods on other nodes. When it went down it lost its routes, which the agent sets when it starts.
pod_network_interface() {
	local link
	link=$(ip -brief link show dev flannel.1 2>/dev/null) || return 0
	[[ $link != *[\<,]UP[,\>]* ]] || return 0
	(wait_for 60 "the API to delete the pod network's agent on $NODE_NAME" delete_pod_network_agent) || return 0
	ip link set flannel.1 up
	changed=yes
}

# Its DaemonSet makes another one.
delete_pod_network_agent() {
	as_kubelet --namespace kube-flannel delete pods --field-selector "spec.nodeName=$NODE_NAME" --wait=false
}

container_runtime() {
	systemctl is-enabled --quiet containerd || systemctl enable --quiet containerd
	systemctl is-active --quiet containerd || {
		systemctl start containerd
		changed=yes
	}
}

# The key is given where you will run kubeadm init yourself.
install_ca_for_manual_init() {
	nothing_of_a_cluster || return 0
	install_lab_ca
	runs_etcd || install_etcd_client
}

# What a machine is prepared by that is a node of the cluster.
node_of_the_cluster() {
	kernel_settings
	kubelet_server
	cgroup_driver
	node_address
	serving_certificate
	former_pod_network
	pods_without_bridge
	pod_network_interface
}

main() {
	exclusively
	# A bare `vagrant up` has put the CAs' keys there for the scripts that follow.
	trap 'rm -f /run/ha-lab/proxy.env' EXIT
	if [[ ${1:-} == --stdin ]]; then
		trap 'rm -f /run/ha-lab/proxy.env /run/ha-lab/ca.key "$ETCD_CA_KEY"' EXIT
		read_secrets
		[[ ! -s /run/ha-lab/ca.key ]] || install_ca_for_manual_init
	fi
	proxies
	names_and_routes
	keys_for_root_only
	kubelet_drop_in
	container_runtime
	[[ $NODE_ROLE == etcd ]] || {
		node_of_the_cluster
		restore_api_server
		restore_ca_certificate
	}
	finish
}

main "$@"
