#!/bin/bash
# Every program that a provisioning script may call and that would change a machine: see world.py.
# It plays a cluster from the files of $WORLD/state. A call that is not below is refused.
set -u
umask 077 # kubeadm's keys and kubeconfigs are for root only
name=${0##*/} state=$WORLD/state
kubernetes=/etc/kubernetes
# /usr/bin is this host's; all other folders that these two write to are the machine's.
[[ $name != @(mv|install) || $* == */usr/bin/* ]] || PATH=${PATH#*:} exec "$name" "$@"
echo "$name $*" >>"$state/calls"
mapfile -d '' -t environment </proc/$$/environ
printf '%s\n' "${environment[@]}" >>"$state/environments"

has() { [[ -e $state/$1 ]]; }
refuse() {
	echo "$name $*" >>"$state/refused"
	exit 97
}

# A filled configuration is private and has no gap.
filled() {
	[[ $(stat -c %a "$1") == 600 ]] || refuse "configuration that others can read: $1"
	! grep -q '@[A-Z_]*@' "$1" || refuse "configuration with gaps: $1"
}

# fails WHAT: whether one more of what should fail is left.
fails() {
	local left
	left=$(cat "$state/failing-$1" 2>/dev/null || echo 0)
	((left > 0)) || return 1
	echo $((left - 1)) >"$state/failing-$1"
}

# A certificate that is valid, and what looks like its key: without a process for each, as there are many.
certificate() {
	local text
	IFS= read -r -d '' text <"$WORLD/opt/ca.crt" || printf '%s' "$text"
}
key() { printf -- '-----BEGIN RSA PRIVATE KEY-----\nits key\n-----END RSA PRIVATE KEY-----\n'; }

kubeconfig() { # FILE
	[[ -n ${certificate_data-} ]] || certificate_data=$(certificate | base64 -w 0) key_data=$(key | base64 -w 0)
	printf '    %s\n' "certificate-authority-data: $certificate_data" "server: https://192.168.56.10:6443" \
		"client-certificate-data: $certificate_data" "client-key-data: $key_data" >"$1"
}

names_certificate() {
	echo "    server: https://192.168.56.10:6443" >$kubernetes/kubelet.conf
	echo "    client-certificate: /var/lib/kubelet/pki/kubelet-client-current.pem" >>$kubernetes/kubelet.conf
	echo "    client-key: /var/lib/kubelet/pki/kubelet-client-current.pem" >>$kubernetes/kubelet.conf
}

has_certificate() {
	names_certificate
	mkdir -p /var/lib/kubelet/pki
	{ certificate && key; } >/var/lib/kubelet/pki/kubelet-client-current.pem
}

kubelet_files() {
	mkdir -p /var/lib/kubelet
	printf 'kind: KubeletConfiguration\nstaticPodPath: /etc/kubernetes/manifests\nvolumeStatsAggPeriod: 0s\n' \
		>/var/lib/kubelet/config.yaml
	echo 'KUBELET_KUBEADM_ARGS=""' >/var/lib/kubelet/kubeadm-flags.env
}

manifest() {
	printf 'kind: Pod\nmetadata:\n  name: %s\nspec:\n  containers:\n  - command:\n    - %s\nstatus: {}\n' "$1" "$1" \
		>"$kubernetes/manifests/$1.yaml"
}

# Then kubeadm makes nothing of etcd's.
has_external_etcd() { grep -qs '^  external:' "$WORLD/opt/kubeadm-init.yaml"; }

# Those that are missing, as kubeadm has it.
certificates() {
	local pair of_etcd=(etcd/ca apiserver-etcd-client etcd/server etcd/peer etcd/healthcheck-client)
	mkdir -p $kubernetes/pki/etcd
	! has_external_etcd || of_etcd=()
	for pair in ca front-proxy-ca apiserver apiserver-kubelet-client front-proxy-client "${of_etcd[@]}"; do
		[[ -e $kubernetes/pki/$pair.crt ]] || certificate >"$kubernetes/pki/$pair.crt"
		[[ -e $kubernetes/pki/$pair.key ]] || key >"$kubernetes/pki/$pair.key"
	done
	[[ -e $kubernetes/pki/sa.key ]] || key >$kubernetes/pki/sa.key
	[[ -e $kubernetes/pki/sa.pub ]] || echo "its public half" >$kubernetes/pki/sa.pub
}

control_plane() {
	local name
	mkdir -p $kubernetes/manifests
	certificates
	for name in kube-apiserver kube-controller-manager kube-scheduler; do manifest "$name"; done
	has_external_etcd || {
		mkdir -p /var/lib/etcd/member
		manifest etcd
	}
	for name in admin controller-manager scheduler; do kubeconfig "$kubernetes/$name.conf"; done
	touch "$state/member"
}

# has_made PHASE-OF-ADDON WORD…: objects with such words are no longer missing.
has_made() {
	local word
	for word; do sed -i "/$word/d" "$state/missing"; done
}

joins() {
	mkdir -p $kubernetes
	names_certificate
	kubelet_files
	grep -q '^controlPlane:' "$1" && control_plane
	if fails join; then
		touch $kubernetes/bootstrap-kubelet.conf
		echo "error execution phase: this try fails"
		exit 1
	fi
	rm -f $kubernetes/bootstrap-kubelet.conf
	if has ages; then # as long as the kubelet pauses: until somebody starts it anew
		touch "$state/own-api"
		for ((left = 200; left > 0; left--)); do
			! has active-kubelet || break
			command sleep 0.05
		done
		((left > 0)) || exit 1
	fi
	# The kubelet has its certificate by then, or it would be started anew to ask again.
	has_certificate
	touch "$state/own-api" "$state/label" "$state/taint" "$state/active-kubelet"
}

# HAProxy has read its configuration: another process with the servers that are in it, none of them drained.
read_by_haproxy() {
	rm -f "$state/reloading"
	echo $(($(cat "$state/haproxy-process" 2>/dev/null || echo 100) + 1)) >"$state/haproxy-process"
	sed -n 's/^[[:space:]]*server \([^ ]*\) .*/\1 0/p' /etc/haproxy/haproxy.cfg >"$state/servers"
}

# As curl does with --silent --show-error: its exit code, and its words.
curl_fails() {
	local code=7 words="Failed to connect to 192.168.56.10 port 6443 after 0 ms: Couldn't connect to server"
	! has curl-fails || read -r code words <"$state/curl-fails"
	echo "curl: ($code) $words" >&2
	exit "$code"
}

# The kubelet starts the container again whose log's folder `crashing` names.
starts_again() {
	local folder log number
	folder=$(cat "$state/crashing")
	log=$(find "$folder" -name '*.log' | sort -V | tail -n 1)
	number=${log##*/}
	# The kubelet keeps the log of the start before.
	mv "$log" "$folder/$((${number%.log} + 1)).log"
	! has earlier-log || cp "$state/earlier-log" "$folder/$number"
	touch "$folder/$((${number%.log} + 1)).log"
}

# Of documents, KIND NAMESPACE NAME each.
objects_asked() {
	awk '
		function told() { if (kind != "" && name != "") print kind, (namespace == "" ? "-" : namespace), name }
		/^---/ { told(); kind = name = namespace = ""; next }
		/^kind: / { kind = $2 }
		/^metadata: {name: / { split($0, part, "\""); name = part[2]; namespace = part[4] }
		/^[a-z]/ { inside = /^metadata:$/ }
		inside && /^  name: / { name = $2 }
		inside && /^  namespace: / { namespace = $2 }
		END { told() }'
}

# Puts the add-on that has this object into `addon`.
is_of_addon() {
	local file
	for file in "$WORLD"/opt/addons/*.objects; do
		addon=${file##*/} addon=${addon%.objects}
		! grep -qxF "$1" "$file" || return 0
	done
	return 1
}

# With `unbound`, the API refuses the group of admin.conf.
is_bound() {
	! has unbound || {
		echo 'Error from server (Forbidden): clusterroles is forbidden: User "kubernetes-admin" cannot get resource' >&2
		exit 1
	}
}

# haproxy_answers COMMAND, as HAProxy 2.6 to 3.0 do on the administrative socket.
haproxy_answers() {
	local server
	if ! has active-haproxy || ! has servers; then
		echo "socat[1] E connect(5, AF=1 \"/run/haproxy/admin.sock\", 25): Connection refused" >&2
		exit 1
	fi
	case $1 in
	"show info")
		echo "Name: HAProxy"
		echo "Pid: $(cat "$state/haproxy-process")"
		echo
		! has reloading || fails reload || read_by_haproxy # the next question is for the new process
		;;
	"show servers state apiserverbackend")
		echo 1
		echo "# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight" \
			"srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state" \
			"srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port" \
			"srv_check_addr srv_agent_addr srv_agent_port"
		awk '{ print "3 apiserverbackend", NR, $1, "192.168.56.1" NR, 2, $2, "1 1 8 6 3 4 6 0 0 0 - 6443 - 0 0 - - 0" }' "$state/servers"
		echo
		;;
	"show stat")
		# Column 5 is a server's current sessions; the next question finds one less.
		echo "# pxname,svname,qcur,qmax,scur,smax"
		echo "apiserverbackend,cp2,0,0,$(cat "$state/sessions"),9"
		echo "apiserverbackend,cp3,0,0,7,9"
		fails sessions-left && echo $(($(cat "$state/sessions") - 1)) >"$state/sessions"
		echo
		;;
	"shutdown sessions server apiserverbackend/cp"[123])
		! has holds || has new-connections-dropped || refuse "sessions end while new ones are begun here"
		echo
		;;
	"set server apiserverbackend/"*" state drain" | "set server apiserverbackend/"*" state ready")
		server=${1#*/} server=${server%% *}
		if has refusal; then
			cat "$state/refusal"
		elif ! grep -q "^$server " "$state/servers"; then
			echo "No such server."
		elif [[ $1 == *drain ]]; then
			sed -i "s/^$server .*/$server 8/" "$state/servers"
		else
			sed -i "s/^$server .*/$server 0/" "$state/servers"
		fi
		echo
		;;
	*) refuse "HAProxy: $1" ;;
	esac
}

# The run is killed as it begins this.
if has killed-at && [[ "$name $*" == *"$(cat "$state/killed-at")"* ]]; then
	kill -KILL "$PPID"
	exit 137
fi

if [[ $name == etcdctl && -e $kubernetes/pki/etcd/ca.crt && ! -s $kubernetes/pki/etcd/ca.crt ]]; then
	echo "Error: failed to parse the CA file" >&2
	exit 1
fi

case "$name $*" in
"systemctl restart haproxy")
	touch "$state/active-haproxy"
	read_by_haproxy
	;;
"systemctl reload haproxy")
	# With failing-reload N, the old process still answers N + 1 questions for its number.
	if has failing-reload; then touch "$state/reloading"; else read_by_haproxy; fi
	;;
"socat -t "[1-9]*" - UNIX-CONNECT:/run/haproxy/admin.sock")
	read -r command
	echo "admin.sock $command" >>"$state/calls"
	! has silent-haproxy || [[ $command != "$(cat "$state/silent-haproxy")"* ]] || exit 0 # as socat does without an answer
	haproxy_answers "$command"
	;;
"ss --no-header --listening --tcp --numeric sport = :6443")
	! has ss-broken || exit 1
	! fails close || echo "LISTEN 0 4096 *:6443 *:*"
	;;
"systemctl is-active "*) has "active-${*: -1}" ;;
"systemctl is-enabled --quiet "*) has "enabled-$3" ;;
"systemctl daemon-reload") cat /etc/systemd/system/kubelet.service.d/* >"$state/read-drop-ins" ;;
"systemctl enable --quiet "*) touch "$state/enabled-$3" ;;
"systemctl restart ha-lab-network")
	cat /etc/ha-lab/hosts >/etc/hosts
	touch "$state/active-ha-lab-network"
	;;
"sysctl --values net.ipv4.ip_forward net.bridge.bridge-nf-call-iptables") cat "$state/kernel" 2>/dev/null || printf '1\n1\n' ;;
"sysctl --quiet --load=/etc/sysctl.d/90-kubernetes.conf")
	! has kernel-lacks || {
		echo "sysctl: cannot stat /proc/sys/net/bridge/bridge-nf-call-iptables: No such file or directory" >&2
		exit 255
	}
	rm -f "$state/kernel"
	;;
"systemctl restart "* | "systemctl start "*)
	touch "$state/active-$2"
	[[ $2 != kubelet ]] || ! has kubelet-version || cp "$state/kubelet-version" "$state/running-kubelet"
	# With a certificate in its kubeconfig a kubelet stores that as its own when it starts.
	if [[ $2 == kubelet && ! -e $state/kubelet-broken ]] && grep -qs client-key-data $kubernetes/kubelet.conf; then
		mkdir -p /var/lib/kubelet/pki
		{ certificate && key; } >/var/lib/kubelet/pki/kubelet-client-current.pem
	fi
	;;
"systemctl show --property StateChangeTimestamp --timestamp=us+utc --value haproxy") cat "$state/haproxy-since" ;;
"systemctl show --property StateChangeTimestamp --timestamp=us+utc --value keepalived") cat "$state/keepalived-since" ;;
"systemctl show --property NeedDaemonReload --value kubelet")
	cat /etc/systemd/system/kubelet.service.d/* 2>/dev/null | cmp -s - <(cat "$state/read-drop-ins" 2>/dev/null) && echo no || echo yes
	;;
"systemctl reload keepalived") has active-keepalived || exit 1 ;;
"systemctl stop keepalived") rm -f "$state/active-keepalived" ;;
# As 2.3.3 does: 5 for what it refuses, 6 where the check of the profile `reference` runs as root.
"keepalived --config-test --use-file /etc/keepalived/keepalived.conf"*)
	[[ -x /etc/keepalived/check.sh ]] || refuse "a configuration before its check is there"
	! grep -qE 'BROKEN|@[A-Z]+@' "$3" || {
		echo "($3: Line 3) Unknown keyword 'BROKEN'"
		exit 5
	}
	! grep -q VI_1 "$3" || exit 6
	;;
# The machine's own address is on an interface that every host has; the shared one is where the file `holds` says.
"ip -json -4 address show to 192.168.62."[67]/32) echo '[{"ifindex":1,"ifname":"lo","flags":["UP"]}]' ;;
"ip -json -4 address show to 192.168.62.5/32") if has holds; then echo '[{"ifindex":1,"ifname":"lo"}]'; else echo "[{}]"; fi ;;
"ip -4 neighbour show to 192.168.62.5") cat "$state/neighbour" 2>/dev/null ;;
"iptables -w -I INPUT -d 192.168.62.5 -p tcp --dport 6443 --syn -j DROP") touch "$state/new-connections-dropped" ;;
"iptables -w -C INPUT -d 192.168.62.5 -p tcp --dport 6443 --syn -j DROP") has new-connections-dropped ;;
"iptables -w -D INPUT -d 192.168.62.5 -p tcp --dport 6443 --syn -j DROP") rm "$state/new-connections-dropped" ;;
"iptables -w -I "*" -p 112 -j DROP") touch "$state/vrrp-dropped-$3" ;;
"iptables -w -D "*" -p 112 -j DROP") rm "$state/vrrp-dropped-$3" 2>/dev/null ;;
"systemctl stop haproxy") rm -f "$state/active-haproxy" ;;
"systemctl show --property ActiveEnterTimestamp --timestamp=unix --value kubelet") cat "$state/kubelet-since" 2>/dev/null ;;
"systemctl stop kubelet") rm -f "$state/active-kubelet" ;;
"systemctl try-restart "*) ;;
"haproxy -c -f /etc/haproxy/haproxy.cfg.new") ! grep -q BROKEN "$3" || {
	echo "parsing [$3:3]: unknown keyword 'BROKEN'"
	exit 1
} ;;

"ps -o etimes= -C etcd,kube-apiserver,kube-controller-manager,kube-scheduler")
	# One line for each time that it is asked; the last one stays. Without any, no such process runs.
	has ages || exit 1
	head -n 1 "$state/ages" | tr ' ' '\n'
	[[ $(wc -l <"$state/ages") == 1 ]] || sed -i 1d "$state/ages"
	;;
"curl "*" https://192.168.56.10:6443/readyz") has api || curl_fails ;;
"curl "*":6443/readyz")
	has own-api || {
		! has crashing || starts_again
		curl_fails
	}
	;;
"pgrep -x kube-apiserver") has runs-kube-apiserver ;;
# Static pods that run: `process-NAME` has its number and for how many seconds it has run. The kubelet starts one again that
# has ended, and that of a manifest that is back.
"pgrep -o -x "*)
	if [[ $3 == kube-apiserver && ! -e $kubernetes/manifests/kube-apiserver.yaml ]]; then exit 1; fi
	read -r process _ < <(cat "$state/process-$3"* 2>/dev/null) || exit 1
	if [[ -e $state/terminated-$process ]]; then
		has kubelet-hangs && exit 1
		process=$((process + 100))
		echo "$process 0" >"$(echo "$state/process-$3"*)"
	fi
	echo "$process"
	;;
"ps -o etimes= -p "*) sed -n "s/^$4 //p" "$state"/process-* ;;
"pkill -TERM -o -x "*)
	read -r process _ < <(cat "$state/process-$4"* 2>/dev/null) || exit 1
	touch "$state/terminated-$process"
	;;
"kubeadm version --output short") echo "v$(cat "$state/kubeadm-version" 2>/dev/null || echo 1.36.3)" ;;
"kubeadm certs renew all --config /run/kubeadm."*) cp "$5" "$state/renewed-with" ;;
"kubeadm certs renew all" | "kubeadm certs renew all --config /run/ha-lab/kubeadm.yaml")
	[[ -z ${5:-} ]] || cp "$5" "$state/renewed-with"
	! has renews-nothing || exit 0
	rm -f $kubernetes/pki/{apiserver,apiserver-kubelet-client,apiserver-etcd-client,front-proxy-client}.{crt,key}
	rm -f $kubernetes/pki/etcd/{server,peer,healthcheck-client}.{crt,key}
	if fails renew; then
		# what kubeadm 1.36.3 prints for one without an extended key usage
		echo "error: failed to renew certificate front-proxy-client: must specify at least one ExtKeyUsage" >&2
		echo "To see the stack trace of this error execute with --v=5 or higher" >&2
		exit 1
	fi
	certificates
	for name in admin controller-manager scheduler super-admin; do
		[[ ! -e $kubernetes/$name.conf ]] || kubeconfig "$kubernetes/$name.conf"
	done
	;;

"kubeadm init --config /run/ha-lab/kubeadm.yaml --upload-certs --skip-token-print --skip-certificate-key-print "*)
	filled "$3"
	[[ $(stat -c %a $kubernetes/pki/ca.key) == 600 ]] || refuse "a key that others can read"
	if has refused-init; then exit 1; fi # by its preflight checks
	control_plane
	kubelet_files
	kubeconfig $kubernetes/kubelet.conf
	kubeconfig $kubernetes/super-admin.conf
	if fails init; then exit 1; fi
	touch "$state/own-api" "$state/label" "$state/taint" "$state/active-kubelet"
	has_certificate
	if fails addons; then
		printf '%s\n' "Deployment kube-system coredns" "DaemonSet kube-system kube-proxy" >"$state/missing"
		exit 1
	fi
	touch "$state/coredns-apart" "$state/missing"
	echo 2 >"$state/coredns-replicas"
	;;
"kubeadm init phase addon coredns --kubeconfig /etc/kubernetes/admin.conf --config /run/ha-lab/kubeadm.yaml")
	filled "${*: -1}"
	has_made coredns kube-dns
	touch "$state/coredns-apart"
	echo 2 >"$state/coredns-replicas"
	;;
"kubeadm init phase addon kube-proxy --kubeconfig /etc/kubernetes/admin.conf --config /run/ha-lab/kubeadm.yaml")
	filled "${*: -1}"
	has_made kube-proxy node-proxier
	;;
"kubeadm init phase upload-config kubeadm --kubeconfig /etc/kubernetes/admin.conf --config /run/ha-lab/kubeadm.yaml")
	filled "${*: -1}"
	has_made kubeadm-config
	rm -f "$state/recorded-version"
	;;
"kubeadm init phase upload-config kubelet --kubeconfig /etc/kubernetes/admin.conf --config /run/ha-lab/kubeadm.yaml")
	filled "${*: -1}"
	has_made kubelet-config
	;;
"kubeadm init phase bootstrap-token --kubeconfig /etc/kubernetes/admin.conf --skip-token-print --config /run/ha-lab/kubeadm.yaml")
	filled "${*: -1}"
	has_made clusterinfo cluster-info get-nodes kubelet-bootstrap node-autoapprove apiserver-kubelet-client
	;;
"kubeadm init phase upload-certs --upload-certs --kubeconfig /etc/kubernetes/admin.conf --skip-certificate-key-print --config /run/ha-lab/kubeadm.yaml") filled "${*: -1}" ;;
"kubeadm init phase mark-control-plane --config /run/ha-lab/kubeadm.yaml")
	filled "$5"
	touch "$state/label" "$state/taint"
	;;
"kubeadm init phase certs all --config /run/ha-lab/kubeadm.yaml")
	filled "$6"
	certificates
	;;
# etcd's CA has no key on the machine, but for a link into memory while it signs.
"kubeadm init phase certs etcd-server --config "* | "kubeadm init phase certs etcd-peer --config "* | \
	"kubeadm init phase certs etcd-healthcheck-client --config "* | "kubeadm init phase certs apiserver-etcd-client --config "*)
	[[ $(readlink $kubernetes/pki/etcd/ca.key) == /run/ha-lab/etcd-ca.key && -s $kubernetes/pki/etcd/ca.key ]] ||
		refuse "a certificate without etcd's CA"
	pair=$4
	[[ $pair == apiserver-* ]] || pair=etcd/${pair#etcd-}
	[[ ! -e $kubernetes/pki/$pair.crt ]] || refuse "a certificate that is there: $pair"
	certificate >"$kubernetes/pki/$pair.crt"
	key >"$kubernetes/pki/$pair.key"
	;;
"kubeadm init phase kubeconfig admin --config "* | "kubeadm init phase kubeconfig controller-manager --config "* | \
	"kubeadm init phase kubeconfig scheduler --config "* | "kubeadm init phase kubeconfig kubelet --config "* | \
	"kubeadm init phase kubeconfig super-admin --config "*)
	filled "$6"
	# It refuses to overwrite what it can't read.
	[[ ! -e $kubernetes/$4.conf ]] || refuse "a kubeconfig that is there: $4"
	kubeconfig "$kubernetes/$4.conf"
	;;
"kubeadm init phase kubelet-start --config /run/ha-lab/kubeadm.yaml")
	filled "$5"
	kubelet_files
	;;
"kubeadm init phase kubelet-finalize all --config /run/ha-lab/kubeadm.yaml")
	filled "$6"
	[[ -s /var/lib/kubelet/pki/kubelet-client-current.pem ]] || exit 1
	has_certificate
	;;
"kubeadm init phase etcd local --config /run/ha-lab/kubeadm.yaml")
	filled "$6"
	sed -n 's/^ *- {name: \(initial-cluster[a-z-]*\), value: "\(.*\)"}/\1 \2/p' "$6" >"$state/initial-cluster"
	mkdir -p $kubernetes/manifests
	manifest etcd
	;;
"kubeadm init phase control-plane apiserver --config "* | "kubeadm init phase control-plane controller-manager --config "* | \
	"kubeadm init phase control-plane scheduler --config "*)
	filled "$6"
	manifest "kube-$4"
	;;
"kubeadm join --config /run/ha-lab/kubeadm.yaml --ignore-preflight-errors="*)
	filled "$3"
	joins "$3"
	;;
"kubeadm join phase control-plane-prepare "*)
	filled "$6"
	certificates
	;;
"kubeadm reset --force --cri-socket unix:///run/containerd/containerd.sock")
	rm -rf $kubernetes/{manifests,pki} $kubernetes/*.conf /var/lib/kubelet/{config.yaml,kubeadm-flags.env,pki}
	rm -f "$state"/{own-api,label,taint}
	;;

"kubectl --kubeconfig /etc/kubernetes/super-admin.conf --request-timeout 10s auth reconcile --filename -")
	[[ -s $kubernetes/super-admin.conf ]] || refuse "a kubeconfig that is not there"
	[[ $(cat) == *"name: cluster-admin}"*"kind: Group, name: 'kubeadm:cluster-admins'}"* ]] || refuse "another binding"
	rm -f "$state/unbound"
	;;
"kubectl config view --kubeconfig /etc/kubernetes/"*" --raw") cat "$state/canonical" 2>/dev/null || exit 1 ;;
"kubectl kustomize --load-restrictor LoadRestrictionsNone "*) cat "$4/kustomization.yaml" ;;
"kubectl create configmap ha-lab-pod-network --namespace kube-system --dry-run=client "*) printf '%s\n' "${@: -3:1}" "${*: -1}" ;;
*" get --filename - --ignore-not-found --output go-template="*.metadata.namespace*)
	if ! has own-api || has forbidden; then
		cat "$state/forbidden" >&2
		exit 1
	fi
	[[ $* != *" /etc/kubernetes/admin.conf "* ]] || is_bound
	# Documents that name an object, a key a line.
	names=$(cat "$state/names") || exit 1
	own=$(sed -n 's/^NODE_NAME=//p' "$WORLD/opt/node.env")
	labels='map[kubernetes.io/os:linux]' taints=""
	! has label || labels='map[kubernetes.io/os:linux node-role.kubernetes.io/control-plane:]'
	! has taint || taints="node-role.kubernetes.io/control-plane "
	# The answer is in the order of the documents.
	objects_asked | grep -vxFf "$state/missing" | while read -r kind namespace object; do
		[[ $kind != Node || " $names " == *" $object "* ]] || continue
		[[ $object != ha-lab-addon-* ]] || has "$object" || continue
		! is_of_addon "$kind $namespace $object" || grep -qsxF "$kind $namespace $object" "$state/addon-objects" || continue
		echo "$kind $namespace $object"
		[[ $object != ha-lab-addon-* ]] || echo "applied $(cat "$state/$object")"
		if is_of_addon "$kind $namespace $object"; then
			[[ $kind != Deployment ]] || echo "workload $addon $(cat "$state/workload-$addon" 2>/dev/null || echo '1 map[containers:[map[]]]')"
			continue
		fi
		[[ "$kind $object" != "ConfigMap kubeadm-config" ]] || has old-configuration || echo "  - name: bind-address"
		[[ "$kind $object" != "ConfigMap kubeadm-config" ]] || echo "kubernetesVersion: v$(cat "$state/recorded-version" 2>/dev/null || echo 1.36.3)"
		[[ $kind != Node ]] || echo "marks $object $([[ $object == "$own" ]] && echo "$labels taints=$taints" || echo "map[] taints=")"
		[[ $kind != Node || $object != w1 || ! -s $state/drained-by ]] || echo "drained w1"
		[[ "$kind $object" != "ConfigMap kube-proxy" ]] || cat "$state/kube-proxy"
		[[ $kind != Deployment ]] ||
			echo "coredns $(cat "$state/coredns-replicas")$(has coredns-apart && echo " kubernetes.io/hostname")"
	done
	;;
"kubectl --kubeconfig /run/ha-lab/token.conf --request-timeout 5s --namespace kube-system get configmap/kubeadm-config configmap/kubelet-config "*"--output name")
	filled /run/ha-lab/token.conf
	! has token-unknown || {
		echo "error: You must be logged in to the server (Unauthorized)"
		exit 1
	}
	;;
*" get --filename - "*"--output go-template="*ha-lab-pod-network*)
	asked=$(cat)
	[[ $asked == *"kind: Kustomization"*$'\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: ha-lab-pod-network, namespace: kube-system}' ]] ||
		refuse "a question for other objects: $asked"
	has pod-network && { has applied-hash || [[ $* == *" --ignore-not-found "* ]]; } || exit 1
	! has applied-hash || echo "sha256 $(cat "$state/applied-hash")"
	! has applied-hash || echo "applied $(cat "$state/applied-pods")"
	echo "pods kube-flannel-ds $(cat "$state/pod-network")"
	has as-shipped && echo 'kube-flannel-ds [--ip-masq --kube-subnet-mgr]' || echo 'kube-flannel-ds [--ip-masq --kube-subnet-mgr --iface-can-reach=192.168.56.10]'
	;;
*" apply --filename /run/ha-lab/pod-network.yaml")
	! has leaving || {
		echo "Error from server (Forbidden): unable to create new content in namespace because it is being terminated" >&2
		exit 1
	}
	rm -f "$state/as-shipped"
	echo "map[containers:[map[name:kube-flannel]]]" >"$state/pod-network"
	;;
*" apply --filename -")
	given=$(cat)
	if [[ $given == *"name: ha-lab-addon-"* ]]; then
		object=$(sed -n 's/^  name: //p' <<<"$given")
		sed -n 's|^  annotations: {ha-lab/applied: "\(.*\)"}$|\1|p' <<<"$given" >"$state/$object"
		exit
	fi
	sed -n "s/^sha256=//w $state/applied-hash
		s/^pods=//w $state/applied-pods" <<<"$given"
	;;
*" apply --filename "*/addons/*.yaml)
	! has leaving || {
		echo "Error from server (Forbidden): roles is forbidden: unable to create new content in namespace because it is being terminated" >&2
		exit 1
	}
	file=${*: -1}
	cat "${file%yaml}objects" >>"$state/addon-objects"
	;;
*" delete --filename "*/addons/*.yaml" --ignore-not-found --wait=false")
	file=${*: -3:1}
	grep -vxFf "${file%yaml}objects" "$state/addon-objects" >"$state/addon-objects.new" || true
	mv "$state/addon-objects.new" "$state/addon-objects"
	;;
*" --namespace kube-system delete configmap ha-lab-addon-"*" --ignore-not-found") rm -f "$state/${*: -2:1}" ;;
# The namespace of an earlier add-on, for as many questions as `leaving` has lines.
*" get --filename - --ignore-not-found --output go-template="*.metadata.deletionTimestamp*)
	cat >/dev/null
	! has leaving || {
		head -n 1 "$state/leaving"
		sed -i 1d "$state/leaving"
		[[ -s $state/leaving ]] || rm "$state/leaving"
	}
	;;
*" get persistentvolumes --output go-template="*)
	cat "$state/volumes" 2>/dev/null || true
	# The second time that it is asked is the last one at which they are there.
	! has volumes-go || { has volumes-asked && rm "$state/volumes"; } || touch "$state/volumes-asked"
	;;

# What kubelets serve with: curl's exit code, the URL and its words, for each that `uncertified` names.
"curl --silent --parallel "*)
	for word; do
		[[ $word == https://*:10250/healthz ]] || continue
		grep -qsxF "$word" "$state/uncertified" && echo "35 $word TLS connect error: tlsv1 alert internal error" || echo "0 $word "
	done
	;;
# Metrics: as many answers as there are questions, in their order.
"curl --parallel --parallel-immediate --config -") sed -n 's/^write-out = "\(.*\) %{http_code} .*/\1 200/p' ;;
"curl --silent --max-time "*":10250/healthz") exit "$(cat "$state/serving" 2>/dev/null || echo 0)" ;;
*" get certificatesigningrequests --field-selector spec.signerName=kubernetes.io/kubelet-serving --output go-template="*) cat "$state/requests" ;;
*" certificate approve "*)
	for word in "${@:6}"; do
		sed -n "s/^$word //p" "$state/asks-for" >"$state/certified"
		grep -vxFf "$state/certified" "$state/uncertified" >"$state/uncertified.new" || true
		mv "$state/uncertified.new" "$state/uncertified"
		sed -i "/^name $word\$/,/^end\$/d" "$state/requests"
	done
	;;
"openssl verify -CAfile $WORLD/opt/ca.crt -verify_ip "*" /var/lib/kubelet/pki/kubelet-server-current.pem" | \
	"openssl req "* | "openssl verify -no_check_time -CAfile "* | \
	"openssl x509 -in /etc/kubernetes/pki/"*" -noout -ext extendedKeyUsage" | \
	"openssl pkey -in /etc/kubernetes/pki/"*".key -pubout" | \
	"openssl x509 -in /etc/kubernetes/pki/"*" -noout -pubkey") PATH=${PATH#*:} exec openssl "$@" ;;
*" --namespace kube-system get configmap kube-proxy --output yaml") sed 's/^/    /' "$state/kube-proxy" ;;
*" --namespace kube-system get configmap kube-root-ca.crt --output jsonpath={.data.ca\.crt}") cat "$state/published" ;;
*" --namespace kube-public get configmap cluster-info --output yaml")
	printf '%s\n' "data:" "  kubeconfig: |" "      certificate-authority-data: b2xk" "      server: https://192.168.56.10:6443"
	;;
*" get daemonsets,deployments --output name")
	[[ $* != *" kube-system "* ]] || printf '%s\n' daemonset.apps/kube-proxy deployment.apps/coredns
	[[ $* != *" kube-flannel "* ]] || echo daemonset.apps/kube-flannel-ds
	;;
*" rollout restart daemonset.apps/"* | *" rollout restart deployment.apps/"*) ;;
*" rollout status "*" --watch=false")
	if fails rollout; then echo "Waiting for daemon set \"kube-proxy\" rollout to finish"; else echo "it was successfully rolled out"; fi
	;;
*" --request-timeout 10s replace --filename -")
	changed=$(cat) # all of it, as what is replaced may still be read
	if [[ $changed == data:* ]]; then
		echo "$changed" >"$state/replaced"
	elif [[ $changed == *ClusterConfiguration* ]]; then
		echo "$changed" >"$state/kubeadm-config"
	else
		printf '%s\n' "$changed" | sed 's/^    //' >"$state/kube-proxy"
	fi
	;;
*" --namespace kube-system rollout restart daemonset kube-proxy") ;;
*"--kubeconfig /run/ha-lab/token.conf "*" get node "*" --output jsonpath={.metadata.labels}")
	filled /run/ha-lab/token.conf
	has previous-label && echo '{"node-role.kubernetes.io/control-plane":""}' || echo '{}'
	;;
*" get node "*" --output jsonpath={.metadata.labels} taints={.spec.taints[*].key}")
	has own-api || exit 1
	labels='{}' taints=""
	! has label || labels='{"node-role.kubernetes.io/control-plane":""}'
	! has taint || taints=node-role.kubernetes.io/control-plane
	echo "$labels taints=$taints"
	;;
"kubectl --kubeconfig /etc/kubernetes/kubelet.conf --request-timeout 10s get node "*" --output name")
	! has kubelet-refused || {
		echo "error: You must be logged in to the server (Unauthorized)" >&2
		exit 1
	}
	has api
	;;
"kubectl --kubeconfig /etc/kubernetes/admin.conf --request-timeout 10s get --raw /api/v1/nodes/"cp[1-3]"/proxy/metrics")
	# That of a kubelet that has just started is given once.
	if has first-metrics; then
		cat "$state/first-metrics"
		rm "$state/first-metrics"
	else
		cat "$state/metrics"
	fi
	;;
"kubectl --kubeconfig /etc/kubernetes/kubelet.conf "*" get pods --all-namespaces --field-selector spec.nodeName="*) cat "$state/named" ;;
"ctr --namespace k8s.io tasks list")
	echo "TASK    PID    STATUS"
	sed 's/$/    4711    RUNNING/' "$state/running"
	;;
*" --namespace kube-system get nodes,secrets --output go-template="*)
	names=$(cat "$state/names") || exit 1
	tr ' ' '\n' <<<"$names" | sed 's/.*/Node & /'
	sed 's/^/Secret /' "$state/secrets"
	;;
*" delete secret "*" --ignore-not-found") : >"$state/secrets" ;;
*" delete node "*" --wait=false --ignore-not-found")
	has finalizer || sed -i "s/\b${*: -3:1}\b//" "$state/names"
	;;
*" delete node "*" --ignore-not-found") ;;

# A node that leaves.
*" get node "*" --ignore-not-found --output name")
	! has api-gone || exit 1
	! grep -qw "${*: -4:1}" "$state/names" || echo "node/${*: -4:1}"
	;;
*" get node "*' --output jsonpath={.status.conditions[?(@.type=="Ready")].status}')
	if has silent-node; then echo Unknown; else echo True; fi
	;;
*" get node "*" --output jsonpath={.spec.unschedulable}") ! has cordoned || echo true ;;
*" get node "*" --output jsonpath={.metadata.annotations.ha-lab/drained-by}") ! has drained-by || cat "$state/drained-by" ;;
*" patch --namespace kube-system deployment coredns --patch-file "*/patches/corednsdeployment+strategic.yaml)
	touch "$state/coredns-apart"
	;;
*" --namespace kube-system set resources daemonset kube-proxy --requests cpu=100m") touch "$state/proxy-requests-cpu" ;;
*" scale --namespace kube-system deployment coredns --replicas "*) echo "${*: -1}" >"$state/coredns-replicas" ;;
*" annotate node "*" ha-lab/drained-by=up --overwrite")
	! fails annotate || exit 1
	echo up >"$state/drained-by"
	;;
*" annotate node "*" ha-lab/drained-by-") rm -f "$state/drained-by" ;;
"kubectl --kubeconfig /etc/kubernetes/admin.conf "*" get pods --all-namespaces --field-selector spec.nodeName="*) cat "$state/node-pods" ;;
*" --namespace "*" get poddisruptionbudgets --output go-template="*) cat "$state/budgets-$6" ;;
*" --namespace "*" get pods --selector "*" --field-selector spec.nodeName="*" --output name")
	! grep -qxF "$6 ${10}" "$state/selected" || echo pod/one
	;;
*" drain "*" --ignore-daemonsets --delete-emptydir-data "*"--timeout "[1-9]*s)
	touch "$state/cordoned"
	! has drain-blocked || {
		echo "error when evicting pods/\"web-1\" -n \"shop\" (will retry after 5s): Cannot evict pod"
		exit 1
	}
	! fails drain || exit 1
	# Nobody confirms that these pods have ended.
	! has silent-node || [[ $* == *" --skip-wait-for-delete-timeout 1 "* ]] || exit 1
	sed -i -n '/DaemonSet$\|Node$/p' "$state/node-pods"
	;;
*" uncordon "*) rm "$state/cordoned" ;;

"etcdctl "*" --endpoints https://127.0.0.1:2379 endpoint status --write-out fields")
	echo "\"Version\" : \"$(sed -n 's#.*/etcd:\([0-9.]*\)-0.*#\1#p' $kubernetes/manifests/etcd.yaml)\""
	;;
"etcdctl "*" endpoint health --write-out simple")
	[[ ${10} != https://127.0.0.1:2379 ]] || {
		! fails health || exit 1
		echo "https://127.0.0.1:2379 is healthy: successfully committed proposal: took = 9.1ms"
		exit
	}
	unhealthy=0
	urls=${10}
	for url in ${urls//,/ }; do
		grep -qxF "$url" "$state/healthy" && echo "$url is healthy: successfully committed proposal: took = 9.1ms" || unhealthy=1
	done
	exit $unhealthy
	;;
"etcdctl "*" endpoint status --write-out fields")
	grep -qxF "${10}" "$state/healthy" || exit 1
	# As numbers they would be the same.
	echo '"ClusterID" : 17'
	echo '"MemberID" : 14841639068965178418'
	grep -qxF "${10}" "$state/leader" && echo '"Leader" : 14841639068965178418' || echo '"Leader" : 14841639068965178419'
	;;
"etcdctl "*" move-leader "*)
	! fails move-leader || exit 1
	grep "^${*: -1}," "$state/members" | cut -d, -f5 | tr -d ' ' >"$state/leader"
	;;
"etcdctl "*" member remove "[1-9]*)
	! fails remove || {
		echo "Error: etcdserver: unhealthy cluster"
		exit 1
	}
	sed -i "/^${*: -1},/d" "$state/members"
	;;
# etcd's data as a whole: a snapshot is the file that the test gives.
"etcdctl "*" snapshot save /var/lib/ha-lab-backup/snapshot.db")
	! has no-quorum || exit 1
	cp "$state/snapshot" "${*: -1}"
	;;
"etcdctl "*" get /registry/ --prefix --keys-only --consistency s --write-out json --rev 12" | \
	"etcdctl "*" get /registry/ --prefix --keys-only --consistency s --write-out json") cat "$state/keys" ;;
"etcdctl "*" endpoint health")
	if has no-majority || [[ ! -e $kubernetes/manifests/etcd.yaml ]]; then
		echo "https://127.0.0.1:2379 is unhealthy: failed to commit proposal: context deadline exceeded" >&2
		exit 1
	fi
	;;
# The drills' faults in etcd, which name their endpoints before the command.
"pkill -KILL -x etcd") ;;
"pkill -KILL -x kube-apiserver") rm -f "$state/runs-kube-apiserver" ;;
"etcdctl "*" --endpoints https://127.0.0.1:2379 put /ha-lab-drill/filling")
	size=$(cat "$state/filled" 2>/dev/null || echo 0)
	if ((size + $(wc -c) > 16 * 1048576)); then
		touch "$state/no-space"
		echo "Error: etcdserver: mvcc: database space exceeded" >&2
		exit 1
	fi
	echo $((size + 1000000)) >"$state/filled"
	;;
"etcdctl "*" --endpoints https://127.0.0.1:2379 alarm list") ! has no-space || echo "memberID:2 alarm:NOSPACE " ;;
"etcdctl "*" get /ha-lab-drill/filling --keys-only") ! has filled || echo /ha-lab-drill/filling ;;
"etcdctl "*" del /ha-lab-drill/filling") rm -f "$state/filled" ;;
"etcdctl "*" endpoint status --write-out json") echo '[{"Status":{"header":{"member_id":2,"revision":77},"version":"3.6.8"}}]' ;;
"etcdctl "*" --endpoints https://127.0.0.1:2379 compact 77") touch "$state/compacted" ;;
"etcdctl "*" --endpoints https://192.168.56.1"?":2379 --command-timeout 60s defrag")
	has compacted || refuse "nothing is freed before the compaction"
	echo "$8" >>"$state/defragmented"
	;;
"etcdctl "*" --endpoints https://127.0.0.1:2379 alarm disarm")
	has defragmented || refuse "an alarm that would be raised again"
	rm "$state/no-space"
	;;
"etcdctl "*" --endpoints https://127.0.0.1:2379 downgrade validate 3.6") ! fails downgrade || exit 1 ;;
"etcdctl "*" --endpoints https://127.0.0.1:2379 downgrade enable 3.6") touch "$state/downgrade" ;;
"etcdctl "*" --endpoints https://127.0.0.1:2379 downgrade cancel")
	if fails downgrade; then
		echo "Error: context deadline exceeded" >&2
		exit 1
	elif ! has downgrade; then
		echo "Error: etcdserver: no inflight downgrade job" >&2
		exit 1
	fi
	rm "$state/downgrade"
	;;
"pgrep -f -- ^etcd .*--quota-backend-bytes="*)
	wanted=${*: -1} wanted=${wanted#*bytes=}
	grep -qs -- "- --quota-backend-bytes=$wanted" $kubernetes/manifests/etcd.yaml
	;;
"etcdctl "*" member add cp2 --learner --peer-urls https://192.168.56.12:2380")
	[[ $* == *" --endpoints https://192.168.56.11:2379,https://192.168.56.13:2379 "* ]] || refuse "a question for the learner: $*"
	echo "9999, unstarted, , https://192.168.56.12:2380, , true" >>"$state/members"
	;;
"etcdctl "*" member add etcd2 --learner --peer-urls https://192.168.63.32:2380")
	[[ $* == *" --endpoints https://192.168.63.31:2379,https://192.168.63.33:2379 "* ]] || refuse "a question for the learner: $*"
	! fails add || {
		echo "Error: etcdserver: too many learner members in cluster" >&2
		exit 1
	}
	echo "9999, unstarted, , https://192.168.63.32:2380, , true" >>"$state/members"
	;;
"etcdctl "*" member promote 9999")
	! fails promote || {
		echo "Error: etcdserver: can only promote a learner member which is in sync with leader" >&2
		exit 1
	}
	[[ -e $kubernetes/manifests/etcd.yaml ]] || refuse "a learner that does not run"
	own=$(sed -n 's/^NODE_NAME=//p' "$WORLD/opt/node.env")
	sed -i "s/^9999, [^,]*, [^,]*, \(.*\):2380, .*/9999, started, $own, \1:2380, \1:2379, false/" "$state/members"
	;;
"etcdutl version") printf 'etcdutl version: 3.6.8\nAPI version: 3.6\n' ;;
"etcdutl snapshot status /var/lib/ha-lab-backup/snapshot.db --write-out json") cat "$state/snapshot-status" ;;
"etcdutl snapshot restore /var/lib/etcd/recovery/snapshot.db --name "*" --data-dir /var/lib/etcd/recovery/restored --bump-revision 1796000000000 --mark-compacted")
	[[ ! -e /var/lib/etcd/recovery/restored ]] || refuse "a data folder that is there"
	[[ ! -e $kubernetes/manifests/etcd.yaml ]] || refuse "a restore beside a running etcd"
	mkdir -p /var/lib/etcd/recovery/restored/member/{snap,wal}
	cp "$3" /var/lib/etcd/recovery/restored/member/snap/db
	;;
"pgrep -x kube-controller") [[ -e $kubernetes/manifests/kube-controller-manager.yaml ]] ;;
"pgrep -x kube-scheduler") [[ -e $kubernetes/manifests/kube-scheduler.yaml ]] ;;
*" --server https://192.168.56.12:6443 get node "*" --ignore-not-found --output jsonpath={.spec.podCIDR}") cat "$state/subnet" 2>/dev/null || true ;;
*" --server https://192.168.56.12:6443 get nodes --output name") tr ' ' '\n' <"$state/names" | sed 's|.|node/&|' ;;

# Of all that it could be asked, only where a join is refused.
"openssl x509 -in /var/lib/kubelet/pki/kubelet-client-current.pem -noout -startdate" | \
	"openssl x509 -in /var/lib/kubelet/pki/kubelet-client-current.pem -noout -enddate") PATH=${PATH#*:} exec openssl "$@" ;;
"pgrep -x etcd") { ! has crashing || [[ $(cat "$state/crashing") != */etcd ]]; } && { has etcd-hangs || [[ -e $kubernetes/manifests/etcd.yaml ]]; } ;;
"pgrep -f -- ^etcd .*--force-new-cluster")
	! has forced || ! fails restart || exit 0
	! grep -q -- --force-new-cluster $kubernetes/manifests/etcd.yaml || exit 0
	exit 1
	;;
"etcdctl "*" member list --write-out simple")
	if has no-quorum && grep -qs -- --force-new-cluster $kubernetes/manifests/etcd.yaml; then
		touch "$state/forced"
		rm "$state/no-quorum"
		cat "$state/member-line"
		exit
	elif has forced; then
		cat "$state/member-line"
		exit
	elif has no-quorum; then
		echo "Error: context deadline exceeded" >&2
		exit 1
	elif has members; then
		cat "$state/members"
		exit
	fi
	echo "aaaa, started, somebody-else, https://192.168.56.99:2380, https://192.168.56.99:2379, false"
	[[ ! -e $state/member ]] || cat "$state/member-line"
	;;
"etcdctl "*" member remove bbbb") rm "$state/member" ;;
"ctr --namespace k8s.io images list --quiet name=="*) grep -xF "${6#name==}" "$state/images" || true ;;
*" --namespace kube-system get daemonsets,serviceaccounts,clusterroles,clusterrolebindings --selector ha-lab/part=network-policy --output name")
	cat "$state/policy-objects" 2>/dev/null || true
	;;
*" --namespace kube-system delete --wait=false daemonset.apps/kube-router clusterrole.rbac.authorization.k8s.io/kube-router")
	rm "$state/policy-objects"
	;;
*" --namespace kube-system get pods --selector ha-lab/part=network-policy --output name")
	cat "$state/policy-pods" 2>/dev/null || true
	rm -f "$state/policy-pods"
	;;
"pgrep -x kube-router") has runs-kube-router ;;
"iptables-save --table filter") cat "$state/filter" ;;
"iptables-restore --noflush --wait")
	cat >"$state/restored"
	echo "*filter" >"$state/filter"
	;;
"ipset list -name") cat "$state/sets" ;;
"ipset destroy KUBE-"*)
	! has set-in-use || {
		rm "$state/set-in-use"
		echo "Set cannot be destroyed: it is in use by a kernel component" >&2
		exit 1
	}
	sed -i "/^$2$/d" "$state/sets"
	;;
"ip -brief link show dev flannel.1") cat "$state/flannel-link" 2>/dev/null || exit 1 ;;
"ip link set flannel.1 up") sed -i 's/>/,UP>/' "$state/flannel-link" ;;
*"/kubelet.conf "*" --namespace kube-flannel delete pods --field-selector spec.nodeName="*" --wait=false")
	has api || {
		echo "connection refused" >&2
		exit 1
	}
	;;
# Pods that run, an id and an address each; those on the host's network have none.
"crictl pods --state ready --quiet") cut -d' ' -f1 "$state/pods" ;;
"crictl inspectp --output go-template --template {{.status.network.ip}} "*) sed -n "s/^${*: -1} *//p" "$state/pods" ;;
"crictl pods --namespace kube-flannel --state ready --quiet") cat "$state/agents" ;;
"crictl stopp "*) sed -i "/^$2 /d" "$state/pods" ;;
"ip -brief -4 address show dev cni0") cat "$state/bridge" 2>/dev/null ;;
"ip link delete cni0") rm "$state/bridge" 2>/dev/null ;;
"ip -oneline link show type veth") cat "$state/veths" 2>/dev/null || true ;;
"ip link add cni0 type bridge") [[ ! -e $state/bridge ]] && : >"$state/bridge" ;;
"ip address replace "*" dev cni0") echo "cni0 UP $3" >"$state/bridge" ;;
"ip link set cni0 up") [[ -e $state/bridge ]] ;;
"ip link set veth"*" master cni0") sed -i "s/ $3@[^ ]*/& master cni0/" "$state/veths" ;;
"ip link set veth"*" type bridge_slave hairpin on") grep -q " $3@.* master cni0" "$state/veths" ;;
"ip link delete "*) exit 1 ;;
# Images that containerd takes unpacked. A snapshot's own folder is below /var/lib/containerd, on top of its parent's.
"ctr --namespace k8s.io images list --quiet") cat "$state/images" ;;
"ctr --namespace k8s.io snapshots --snapshotter overlayfs info "*) grep -qxF "${*: -1}" "$state/snapshots" ;;
"ctr --namespace k8s.io snapshots --snapshotter overlayfs rm ha-lab-upgrade")
	! has prepared || rm -rf "/var/lib/containerd/snapshots/$(cut -d' ' -f1 "$state/prepared")"
	rm -f "$state/prepared"
	;;
"ctr --namespace k8s.io snapshots --snapshotter overlayfs prepare ha-lab-upgrade"*)
	[[ $# -lt 8 ]] || grep -qxF "$8" "$state/snapshots" || refuse "a parent that is not there: $8"
	number=$(($(wc -l <"$state/snapshots") + 1))
	mkdir -p "/var/lib/containerd/snapshots/$number/fs"
	echo "$number ${8-}" >"$state/prepared"
	;;
"ctr --namespace k8s.io snapshots --snapshotter overlayfs mounts /mnt ha-lab-upgrade")
	read -r number parent <"$state/prepared"
	own=/var/lib/containerd/snapshots/$number
	if [[ -n $parent ]]; then
		echo "mount -t overlay overlay /mnt -o index=off,workdir=$own/work,upperdir=$own/fs,lowerdir=/var/lib/containerd/snapshots/1/fs"
	else
		echo "mount -t bind $own/fs /mnt -o rw,rbind"
	fi
	;;
"ctr --namespace k8s.io snapshots --snapshotter overlayfs commit "*" ha-lab-upgrade")
	! fails commit || exit 1
	echo "$7" >>"$state/snapshots"
	rm "$state/prepared"
	;;
"ctr --namespace k8s.io images import --local --snapshotter overlayfs -")
	mkdir "$state/imported"
	tar -xf - -C "$state/imported"
	sed 's/}},{/}}\n{/g' "$state/imported/index.json" |
		sed -n 's/.*"io.containerd.image.name":"\([^"]*\)".*/\1/p' >>"$state/images"
	;;
"ctr --namespace k8s.io images label "*" io.cri-containerd.pinned=pinned") echo "$5" >>"$state/pinned" ;;

# An upgrade. Programs report the version of the file in `payload` that was installed.
"kubelet --version") echo "Kubernetes v$(cat "$state/kubelet-version")" ;;
"install -m 755 /var/lib/containerd/ha-lab-upgrade/1.36.3/bin/"*" /usr/bin/."*.new) [[ -e $3 ]] ;;
"mv /usr/bin/."*".new /usr/bin/"*)
	! has "${2##*/}-version" || echo 1.36.3 >"$state/${2##*/}-version"
	;;
*" --namespace kube-system get configmap kubeadm-config --output yaml")
	# The first answer is for the tag of etcd.
	[[ -e $state/configured ]] && fails configuration && exit 1
	touch "$state/configured"
	cat "$state/kubeadm-config"
	;;
*" get nodes --selector node-role.kubernetes.io/control-plane --output jsonpath="*) cat "$state/kubelets" ;;
"kubeadm upgrade apply v1.36.3 --yes "* | "kubeadm upgrade node "*)
	[[ $(cat "$state/kubeadm-version") == 1.36.3 ]] || refuse "kubeadm of another version"
	! fails upgrade || exit 1
	[[ -e $kubernetes/manifests ]] && ! has keeping-static-pods || exit 0
	[[ -e $kubernetes/manifests/kube-apiserver.yaml ]] || refuse "kubeadm upgrade without a manifest"
	version=v1.36.3
	[[ $2 != node ]] || version=$(sed -n 's/^ *kubernetesVersion: //p' "$state/kubeadm-config")
	sed -i "s#^\( *kubernetesVersion: \).*#\1$version#" "$state/kubeadm-config"
	tag=$(sed -n '/etcd:/,$ s/^ *imageTag: //p' "$state/kubeadm-config")
	sed -i "s#/etcd:.*#/etcd:$tag#" $kubernetes/manifests/etcd.yaml
	for component in kube-apiserver kube-controller-manager kube-scheduler; do
		sed -i "s#/$component:.*#/$component:$version#" "$kubernetes/manifests/$component.yaml"
	done
	;;
*"/kubelet.conf "*" get node "*" --output jsonpath={.status.nodeInfo.kubeletVersion} "*)
	# A new kubelet starts its static pods again, the API server among them.
	! has answering-once || [[ ! -e $state/answered ]] || exit 1
	touch "$state/answered"
	echo "v$(cat "$state/running-kubelet") $(has not-ready && echo False || echo True)"
	;;
*) refuse "$*" ;;
esac
