#!/bin/bash
# The bare floor that `./inv bench` measures `up` against: the same golden machine, started with plain
# docker commands, kubeadm typed by hand, in the best order there is. No Vagrant, no ssh, no checks.
#
#   IMAGE=… CAPABILITIES="…" VERSION=… ETCD_TAG=… WORK=FOLDER floor.sh up|down
#
# Prints `step seconds` lines; `ready` is when all six nodes are.
set -euo pipefail

readonly NETWORK=floor SUBNET=192.168.61 LB=192.168.61.10
declare -rA ADDRESS=([lb1]=10 [cp1]=11 [cp2]=12 [cp3]=13 [w1]=21 [w2]=22 [w3]=23)
readonly ORDER="lb1 cp1 cp2 cp3 w1 w2 w3"

in_() { docker exec -i "floor-$1" "${@:2}"; }
now() { date +%s%3N; }
took() { printf '%s %d.%d\n' "$1" $((($(now) - began) / 1000)) $((($(now) - began) / 100 % 10)); }

start() {
	local name=$1 words=() capability
	for capability in $CAPABILITIES; do words+=(--cap-add "$capability"); done
	docker run --detach --name "floor-$name" --hostname "$name" --network $NETWORK \
		--ip "$SUBNET.${ADDRESS[$name]}" --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
		--security-opt systempaths=unconfined --device-cgroup-rule 'a *:* rwm' --cgroupns=private \
		--tmpfs /run:exec --stop-signal SIGRTMIN+3 --volume /var/lib/containerd --volume /var/lib/etcd \
		--volume /var/lib/kubelet "${words[@]}" "$IMAGE" >/dev/null
}

prepare() { # what a node needs before kubeadm; the same files that the kit puts there
	local name=$1
	until in_ "$name" systemctl is-active --quiet multi-user.target; do sleep 0.2; done
	in_ "$name" bash -euc '
		cat >/etc/ha-lab/network.env; : >/etc/ha-lab/hosts
		mkdir -p /etc/kubernetes/kubelet.conf.d
		source /etc/ha-lab/network.env
		echo "nameserver $ADDRESS" >/etc/ha-lab/resolv.conf
		{ echo "apiVersion: kubelet.config.k8s.io/v1beta1"; echo "kind: KubeletConfiguration"
		echo "resolvConf: /etc/ha-lab/resolv.conf"
		[[ -e /sys/fs/cgroup/cgroup.controllers ]] || echo "failCgroupV1: false"
		} >/etc/kubernetes/kubelet.conf.d/10-node.conf
		systemctl restart ha-lab-network ha-lab-dns; systemctl start containerd
	' <<<"ADDRESS=$SUBNET.${ADDRESS[$name]}
NODE_NAME=$name
PODS=10.244.0.0/16
SERVICES=10.96.0.0/16"
}

haproxy() {
	until in_ lb1 systemctl is-active --quiet multi-user.target; do sleep 0.2; done
	in_ lb1 bash -euc 'cat /usr/share/ha-lab/haproxy.packaged.cfg - >/etc/haproxy/haproxy.cfg; systemctl start haproxy' <<EOT
frontend apiserver
	bind *:6443
	mode tcp
	default_backend apiserverbackend
backend apiserverbackend
	mode tcp
	option httpchk
	http-check connect ssl
	http-check send meth GET uri /healthz
	http-check expect status 200
	default-server inter 500ms fall 3 rise 1
	server cp1 $SUBNET.11:6443 check verify none
	server cp2 $SUBNET.12:6443 check verify none
	server cp3 $SUBNET.13:6443 check verify none
EOT
}

ignore() { [[ -e /sys/fs/cgroup/cgroup.controllers ]] && echo Swap || echo Swap,SystemVerification; }

registration() {
	printf 'nodeRegistration:\n  name: %s\n  kubeletExtraArgs: [{name: node-ip, value: "%s"}]\n' "$1" "$SUBNET.${ADDRESS[$1]}"
}

init() {
	in_ cp1 bash -c "cat >/run/init.yaml && kubeadm init --config /run/init.yaml --upload-certs --skip-token-print \
		--skip-certificate-key-print --ignore-preflight-errors=$(ignore)" <<EOT
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
bootstrapTokens: [{token: "$token"}]
certificateKey: $key
localAPIEndpoint: {advertiseAddress: $SUBNET.11}
$(registration cp1)
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: v$VERSION
controlPlaneEndpoint: $LB:6443
etcd: {local: {imageTag: $ETCD_TAG}}
networking: {podSubnet: 10.244.0.0/16, serviceSubnet: 10.96.0.0/16}
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failSwapOn: false
imageGCHighThresholdPercent: 100
evictionHard: {nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%"}
---
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
EOT
}

join() {
	local name=$1 control_plane=
	[[ $name != cp* ]] || control_plane="controlPlane: {certificateKey: $key, localAPIEndpoint: {advertiseAddress: $SUBNET.${ADDRESS[$name]}}}"
	in_ "$name" bash -c "cat >/run/join.yaml && kubeadm join --config /run/join.yaml --ignore-preflight-errors=$(ignore)" <<EOT
apiVersion: kubeadm.k8s.io/v1beta4
kind: JoinConfiguration
discovery: {bootstrapToken: {token: "$token", apiServerEndpoint: "$LB:6443", unsafeSkipCAVerification: true}}
$control_plane
$(registration "$name")
EOT
}

all_ready() {
	local ready
	ready=$(in_ cp1 kubectl --kubeconfig /etc/kubernetes/admin.conf get nodes --no-headers 2>/dev/null | awk '$2 == "Ready"' | wc -l)
	[[ $ready == 6 ]]
}

up() {
	local began name waiting=() deadline
	began=$(now)
	token=$(tr -dc a-z0-9 </dev/urandom | head -c 6 || true).$(tr -dc a-z0-9 </dev/urandom | head -c 16 || true)
	key=$(od -An -tx1 -N32 /dev/urandom | tr -d ' \n')
	docker network create --internal --subnet "$SUBNET.0/24" $NETWORK >/dev/null
	for name in $ORDER; do start "$name" & done
	wait
	took booted
	haproxy &
	for name in cp1 cp2 cp3 w1 w2 w3; do prepare "$name" & done
	wait
	took prepared
	init >"$WORK/init.log" 2>&1
	took init
	in_ cp1 kubectl --kubeconfig /etc/kubernetes/admin.conf apply -f /usr/share/ha-lab/kube-flannel.yml >/dev/null &
	for name in w1 w2 w3; do
		join "$name" >"$WORK/$name.log" 2>&1 &
		waiting+=($!)
	done
	join cp2 >"$WORK/cp2.log" 2>&1
	took cp2
	join cp3 >"$WORK/cp3.log" 2>&1
	took cp3
	wait "${waiting[@]}"
	deadline=$((SECONDS + 180))
	until all_ready; do
		((SECONDS < deadline)) || {
			echo "not all nodes Ready after 180 s" >&2
			exit 1
		}
		sleep 0.3
	done
	took ready
}

down() {
	local name
	for name in $ORDER; do docker rm --force --volumes "floor-$name" >/dev/null 2>&1 & done
	wait
	docker network rm $NETWORK >/dev/null 2>&1 || true
}

"$1"
