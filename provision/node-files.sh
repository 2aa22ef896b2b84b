# shellcheck shell=bash
# The files without which a Kubernetes node does not run: which of them are missing or broken, and how a control plane
# gets them back without leaving its cluster. A power cut leaves files without bytes, or cut short.
# Sourced after kubernetes.sh. A function `…_problem` prints what is wrong, or nothing.

readonly KUBELET_SETTINGS=/var/lib/kubelet/config.yaml KUBELET_FLAGS=/var/lib/kubelet/kubeadm-flags.env
readonly KUBELET_CERTIFICATE=/var/lib/kubelet/pki/kubelet-client-current.pem
# SIGNED: pairs of .crt and .key in $PKI that a CA signs. SERVERS: those of them that a server shows. COMPONENTS: static pods.
if [[ $NODE_ROLE == etcd ]]; then
	readonly CONTROL_PLANE_KUBECONFIGS=() SIGNED=("${SIGNED_FOR_ETCD[@]}") SERVERS=(etcd/server etcd/peer) COMPONENTS=(etcd)
else
	readonly CONTROL_PLANE_KUBECONFIGS=(admin controller-manager scheduler)
	if runs_etcd; then
		readonly SIGNED=(apiserver apiserver-kubelet-client apiserver-etcd-client front-proxy-client etcd/server etcd/peer etcd/healthcheck-client)
		readonly SERVERS=(apiserver etcd/server etcd/peer)
		readonly COMPONENTS=(etcd kube-apiserver kube-controller-manager kube-scheduler)
	else
		readonly SIGNED=(apiserver apiserver-kubelet-client apiserver-etcd-client front-proxy-client)
		readonly SERVERS=(apiserver)
		readonly COMPONENTS=(kube-apiserver kube-controller-manager kube-scheduler)
	fi
fi
readonly KUBELET_SETTLES=10 # seconds
readonly END_OF_KEY=$'\n-----END ([A-Z]+ )?PRIVATE[ ]KEY-----'

# shellcheck source=provision/certificate.sh
source "$HERE/certificate.sh"

# `up` looks at all these files several times on each machine, so bash reads them itself: with processes for each
# question about each file, one look at a control plane took most of a second of CPU.

# read_text FILE: puts a newline and the file's content into `text`, so that each line begins after a newline. Fails
# where the file has a zero byte, which no text has; `text` ends before that.
read_text() {
	text=
	if IFS= read -r -d '' text 2>/dev/null <"$1"; then
		text=$'\n'$text
		return 1
	fi
	text=$'\n'$text
}

# value_of KEY: puts what the first `KEY: …` line of `text` has into `value`, without quotes, or nothing. No value that is
# asked for has a quote or a space in it.
value_of() {
	value=
	! [[ $text =~ $'\n'\ *$1:\ +[\"\']?([^$'\n'\"\'\ ]*) ]] || value=${BASH_REMATCH[1]}
}

# The servers' certificates that no client would accept from a server: a name per line. kubeadm copies usages and names from
# the certificate that it renews (cmd/kubeadm/app/phases/certs/renewal), so the new one would be as wrong, and be served.
not_for_a_server() {
	local name usage
	for name in "${SERVERS[@]}"; do
		usage=$(openssl x509 -in "$PKI/$name.crt" -noout -ext extendedKeyUsage 2>/dev/null) || continue
		[[ -z $usage || $usage == *"TLS Web Server Authentication"* ]] || echo "$name"
	done
}

# The servers' pairs with which the server would not start, or serve nobody: a name per line, some of them twice.
unfit_to_serve() {
	local name public
	not_for_a_server
	for name in "${SERVERS[@]}"; do
		public=$(openssl pkey -in "$PKI/$name.key" -pubout 2>/dev/null) || continue
		[[ $public == "$(openssl x509 -in "$PKI/$name.crt" -noout -pubkey 2>/dev/null)" ]] || echo "$name"
	done
}

# kubeadm ends at the first one that it can't renew, such as one without an extended key usage, and names it. Its
# configuration is in the cluster, whose API may not answer, as when its certificate has expired. kubeadm then takes its
# defaults (cmd/kubeadm/app/cmd/certs.go), and misses the files of an etcd that would run here; so it is given that of the lab.
renew_all_certificates() {
	local wrong config=()
	wrong=$(not_for_a_server)
	[[ -z $wrong ]] ||
		die "in $PKI these are not certificates for a server, and kubeadm would renew them as they are:" \
			"${wrong//$'\n'/, }. Move each .crt and its .key to another directory: \`./inv up\` makes them again"
	runs_etcd || {
		cluster_configuration >"$FILLED"
		config=(--config "$FILLED")
	}
	# shellcheck disable=SC2154 # with_notices sets last_line
	with_notices "kubeadm certs renew" kubeadm certs renew all "${config[@]}" ||
		die "kubeadm can't renew the certificates of this machine: ${last_line#error: }. If it names a" \
			"certificate of $PKI, move its .crt and .key to another directory: \`./inv up\` makes them again"
}

# kubeadm's ClusterConfiguration of this lab, in which there is no secret.
cluster_configuration() {
	echo "apiVersion: kubeadm.k8s.io/v1beta4"
	sed -n '/^kind: ClusterConfiguration$/,/^---$/ { /^---$/d; p }' "$HERE/kubeadm-init.yaml"
}

file_problem() {
	if [[ ! -e $1 ]]; then
		echo "$1 is missing"
	elif [[ ! -s $1 ]]; then
		echo "$1 is empty"
	fi
}

certificate_problem() {
	local text begins ends
	if [[ ! -s $1 ]]; then
		file_problem "$1"
		return
	fi
	read_text "$1" || true
	certificate_dates "$text" || echo "$1 has no complete certificate"
}

# Apart from certificate_problem, since a clock that is wrong does this, too: it is no reason to reset a machine.
validity_problem() {
	local text begins ends
	[[ -s $1 ]] || return 0
	read_text "$1" || true
	certificate_dates "$text" || return 0
	if ((ends < EPOCHSECONDS)); then
		echo "the certificate in $1 has expired"
	elif ((begins > EPOCHSECONDS)); then
		echo "the certificate in $1 is not valid yet"
	fi
}

# dates_problem FILE: prints by which date the certificate in FILE is not valid now, and what the clock has.
dates_problem() {
	local from until
	from=$(openssl x509 -in "$1" -noout -startdate 2>/dev/null) || return 0
	until=$(openssl x509 -in "$1" -noout -enddate)
	from=${from#*=} until=${until#*=}
	if ((EPOCHSECONDS > $(date --date "$until" +%s))); then
		echo "the certificate in $1 is valid until $until, and the clock has $(date --utc)"
	elif ((EPOCHSECONDS < $(date --date "$from" +%s))); then
		echo "the certificate in $1 is valid from $from on, and the clock has $(date --utc)"
	fi
}

key_problem() {
	local text
	if [[ ! -s $1 ]]; then
		file_problem "$1"
		return
	fi
	read_text "$1" || true
	[[ $text =~ $END_OF_KEY ]] || echo "$1 has no complete key"
}

# Users' tools write YAML in other styles, or JSON: where these lines do not say what is needed, kubectl reads the file.
kubeconfig_problem() {
	local text problem
	if [[ ! -s $1 ]]; then
		file_problem "$1"
		return
	fi
	read_text "$1" || true
	problem=$(kubeconfig_text_problem "$1")
	[[ -n $problem ]] || return 0
	text=$'\n'$(kubectl config view --kubeconfig "$1" --raw 2>/dev/null) || text=
	[[ -n $text && -z $(kubeconfig_text_problem "$1") ]] || echo "$problem"
}

# kubeconfig_text_problem FILE, whose content is in `text`. A kubeconfig has a certificate and a key in itself, or names
# the files that have them.
kubeconfig_text_problem() {
	local value begins ends
	value_of server
	if [[ $value != https://* ]]; then
		echo "$1 names no server"
		return
	fi
	value_of client-certificate
	if [[ -n $value ]]; then
		certificate_problem "$value"
		value_of client-key
		[[ -n $value ]] || echo "$1 names no key"
		[[ -z $value ]] || key_problem "$value"
		return
	fi
	value_of client-certificate-data
	if ! certificate_dates "$(base64 -d 2>/dev/null <<<"$value")" || ((ends < EPOCHSECONDS || begins > EPOCHSECONDS)); then
		echo "$1 has no valid certificate"
		return
	fi
	value_of client-key-data
	[[ $'\n'$(base64 -d 2>/dev/null <<<"$value") =~ $END_OF_KEY ]] || echo "$1 has no complete key"
}

# text_problem FILE END PATTERN…: FILE has text for each PATTERN, which begins with a newline. Programs write it, with a
# newline at its end. Without one it ends with END, which they write last, or it was cut short.
text_problem() {
	local file=$1 end=$2 pattern text complete=yes
	shift 2
	if [[ ! -s $file ]]; then
		file_problem "$file"
		return
	fi
	read_text "$file" || complete=no
	for pattern; do
		[[ $text =~ $pattern ]] || {
			echo "$file is incomplete"
			return
		}
	done
	[[ $complete == yes && ($text == *$'\n' || $text =~ $end$) ]] || echo "$file is cut short"
}

# kubelet_has_read FILE: the kubelet was started after FILE last changed, and has run for longer than it takes one to end
# that can't read it. So FILE may be odd, but nothing in it is missing.
kubelet_has_read() {
	local since
	[[ -s $1 ]] && systemctl is-active --quiet kubelet || return 1
	since=$(systemctl show --property ActiveEnterTimestamp --timestamp=unix --value kubelet)
	since=${since#@}
	[[ -n $since ]] && ((since > $(stat --format %Y "$1") && EPOCHSECONDS - since >= KUBELET_SETTLES))
}

kubelet_settings_problem() {
	local problem
	problem=$(text_problem "$KUBELET_SETTINGS" $'\nvolumeStatsAggPeriod: [^\n]+' $'\nkind: KubeletConfiguration' $'\nstaticPodPath: ')
	[[ -z $problem ]] || kubelet_has_read "$KUBELET_SETTINGS" || echo "$problem"
	text_problem "$KUBELET_FLAGS" '"' $'\nKUBELET_KUBEADM_ARGS='
}

# An API server that ends has its manifest elsewhere for a while.
manifest_problem() {
	local text manifest=$MANIFESTS/$1.yaml
	[[ $1 == kube-apiserver && -e $API_SERVER_ASIDE ]] ||
		text_problem "$manifest" $'\nstatus: [^\n]+' $'\nkind: Pod' $'\nspec:' $'\n *name: '"$1"$'\n'
	# sole-member.sh was interrupted.
	[[ -e $manifest ]] || return 0
	read_text "$manifest" || true
	[[ $text != *"- --force-new-cluster"* ]] || echo "$manifest has --force-new-cluster"
}

pair_problem() {
	certificate_problem "$PKI/$1.crt"
	key_problem "$PKI/$1.key"
}

signed_problem() {
	pair_problem "$1"
	validity_problem "$PKI/$1.crt"
}

# kubeadm init lets kubelet.conf name the kubelet's own certificate at its end.
kubelet_problem() {
	local problem
	problem=$(kubeconfig_problem "$KUBELET")
	if [[ -n $problem ]]; then
		echo "$problem"
	elif [[ -e $ONCE_COMPLETE ]] && ! kubelet_has_its_certificate; then
		echo "$KUBELET does not name the kubelet's own certificate"
	elif [[ $NODE_ROLE == control-plane ]]; then
		# It makes another one, valid from the CA's first day on (kubeadm, pki_helpers.go), so that a wrong clock does no harm.
		validity_problem "$KUBELET_CERTIFICATE"
	fi
}

# What `kubeadm join`, repair_control_plane or etcd.sh makes again. (node.sh restores the CA's certificate.)
broken_files() {
	local name
	[[ $NODE_ROLE != etcd ]] || {
		etcd_machine_problem
		return
	}
	kubelet_problem
	kubelet_settings_problem
	[[ $NODE_ROLE == control-plane ]] || return 0
	runs_etcd || certificate_problem "$PKI/etcd/ca.crt"
	for name in "${CONTROL_PLANE_KUBECONFIGS[@]}"; do kubeconfig_problem "/etc/kubernetes/$name.conf"; done
	for name in "${SIGNED[@]}"; do signed_problem "$name"; done
	for name in "${COMPONENTS[@]}"; do manifest_problem "$name"; done
}

# Of an etcd machine, whose kubelet belongs to no cluster.
readonly SERVICE_MANAGER=/etc/systemd/system/kubelet.service.d/20-etcd-service-manager.conf
# It waits for its configuration before it starts (kubelet.service.d/20-ha-lab.conf). A run that was killed may have left a
# drop-in that systemd has not read.
service_manager() {
	local restart=no
	place 644 "$SERVICE_MANAGER" <"$HERE/${SERVICE_MANAGER##*/}" && restart=yes
	place 644 "$KUBELET_SETTINGS" <"$HERE/kubelet.yaml" && restart=yes
	[[ $(systemctl show --property NeedDaemonReload --value kubelet) == no ]] || {
		systemctl daemon-reload
		restart=yes
	}
	[[ $restart == no ]] || systemctl restart kubelet
}

etcd_machine_problem() {
	local name
	file_problem "$KUBELET_SETTINGS"
	file_problem "$SERVICE_MANAGER"
	certificate_problem "$PKI/etcd/ca.crt"
	for name in "${SIGNED[@]}"; do signed_problem "$name"; done
	manifest_problem etcd
}

# What only another control plane still has, or other members of etcd.
lost_files() {
	local name
	if [[ $NODE_ROLE == control-plane ]]; then
		pair_problem front-proxy-ca
		! runs_etcd || pair_problem etcd/ca
		for name in ca sa; do key_problem "$PKI/$name.key"; done
		file_problem "$PKI/sa.pub"
	fi
	! runs_etcd || etcd_data_problem
}

# etcd starts without its data, too, and creates the folder again. As a member that others know, it ends with this message
# each time, since it has forgotten what it had acknowledged (go.etcd.io/raft, log.go). So does a member that was removed,
# with another message (etcd, rafthttp/util.go and etcdserver/server.go).
etcd_data_problem() {
	local newest
	[[ -d /var/lib/etcd/member ]] || {
		echo "/var/lib/etcd/member is missing"
		return 0
	}
	newest_log etcd
	[[ -n $newest ]] || return 0
	! grep -q 'Was the raft log corrupted, truncated, or lost' "$newest" ||
		echo "/var/lib/etcd/member has lost data that etcd had acknowledged"
	! grep -q 'the member has been permanently removed from the cluster' "$newest" ||
		echo "etcd's other members have removed this machine's member"
}

# What a machine has of a cluster, as probe.sh prints it.
membership() {
	if [[ $NODE_ROLE == etcd ]]; then
		membership_in_etcd
	elif nothing_of_a_cluster && ! lost_its_kubeconfig; then
		echo fresh
	elif lost_its_kubeconfig || [[ -e $BOOTSTRAP ]] || was_interrupted; then
		echo partial
	elif [[ $NODE_ROLE == control-plane && -n $(lost_files) ]]; then
		echo partial
	elif [[ -z $(broken_files) ]]; then
		echo joined
	elif [[ $NODE_ROLE == control-plane ]]; then
		echo damaged
	else
		echo partial
	fi
}

# The same of an etcd machine. Until its member was healthy once, it has not joined.
membership_in_etcd() {
	if [[ ! -e $ONCE_COMPLETE && ! -e $MANIFESTS/etcd.yaml && ! -d /var/lib/etcd/member ]]; then
		echo fresh
	elif [[ ! -e $ONCE_COMPLETE || -n $(lost_files) ]]; then
		echo partial
	elif [[ -n $(broken_files) ]]; then
		echo damaged
	else
		echo joined
	fi
}

# `kubeadm reset` removes the certificate, too. A worker that has it once joined, and may still run pods.
lost_its_kubeconfig() { [[ $NODE_ROLE == worker && ! -e $KUBELET && -e $KUBELET_CERTIFICATE ]]; }

# The kubelet of a complete node has its own certificate, which kubelet.conf names. An interrupted init or join has no
# such kubelet.conf yet, while a broken one was there before.
was_interrupted() {
	[[ ! -e $ONCE_COMPLETE ]] || return 1
	[[ ! -e $KUBELET ]] || { ! kubelet_has_its_certificate && [[ -z $(kubelet_problem) ]]; }
}

# Without it the kubelet does not start.
restore_ca_certificate() {
	nothing_of_a_cluster || [[ -z $(certificate_problem "$PKI/ca.crt") ]] ||
		place 644 "$PKI/ca.crt" <"$HERE/ca.crt" || true
}

# Creates those again that are missing, broken or not valid now. `fill` has written the configuration.
repair_certificates() {
	local name
	for name in "${SIGNED[@]}"; do
		[[ -z $(signed_problem "$name") ]] || rm -f "$PKI/$name".{crt,key}
	done
	[[ $NODE_ROLE == etcd ]] || init_phase certs all # creates only those that are missing
	if [[ $NODE_ROLE == etcd ]] || ! runs_etcd; then repair_etcd_certificates; fi
}

# Those that kubeadm makes only where it runs etcd.
repair_etcd_certificates() {
	local name
	install_etcd_ca
	for name in "${SIGNED_FOR_ETCD[@]}"; do
		[[ -z $(signed_problem "$name") ]] || sign_for_etcd "$name"
	done
}

# Makes the files of a control plane again that are missing or broken, with kubeadm's own phases; all others stay as they
# are. What the machine still has (CAs, etcd's data) is enough for that.
repair_control_plane() {
	local broken name certificate=no
	broken=$(broken_files)
	[[ -n $broken ]] || return 0
	repairs "$broken"
	# If this is interrupted, what it leaves is not half a join.
	note_complete
	fill "$HERE/kubeadm-init.yaml"
	repair_certificates
	for name in "${CONTROL_PLANE_KUBECONFIGS[@]}"; do
		if [[ -n $(kubeconfig_problem "/etc/kubernetes/$name.conf") ]]; then
			rm -f "/etc/kubernetes/$name.conf"
			init_phase kubeconfig "$name"
		fi
	done
	# Before kubelet.conf is removed: a machine that has neither is taken for one without a cluster.
	for name in "${COMPONENTS[@]}"; do
		[[ -z $(manifest_problem "$name") ]] || write_manifest "$name"
	done
	if [[ -n $(kubelet_problem) ]]; then
		certificate=yes
		rm -f "$KUBELET" "$KUBELET_CERTIFICATE"
		init_phase kubeconfig kubelet
	fi
	[[ -z $(kubelet_settings_problem) ]] || init_phase kubelet-start
	# It waits longer and longer before it starts a pod again that has failed.
	systemctl restart kubelet
	if [[ $certificate == yes ]]; then
		wait_for 60 "the kubelet to store its certificate" kubelet_stored_its_certificate
		init_phase kubelet-finalize all
	fi
	# shellcheck disable=SC2034  # for `finish`
	changed=yes
}

# Labs of an earlier version have kubeadm's default. kubeadm lets the probes ask the same address as it lets them listen at.
metrics_reachable() {
	local text name
	for name in kube-controller-manager kube-scheduler; do
		read_text "$MANIFESTS/$name.yaml" || true
		[[ $text == *"- --bind-address=127.0.0.1"* ]] || continue
		repairs "only its own machine could read the metrics of $name"
		fill "$HERE/kubeadm-init.yaml"
		write_manifest "$name"
		# shellcheck disable=SC2034  # for `finish`
		changed=yes
	done
}

write_manifest() {
	if [[ $1 == etcd ]]; then
		init_phase etcd local
	else
		init_phase control-plane "${1#kube-}"
	fi
}

kubelet_stored_its_certificate() {
	local problem
	problem=$(certificate_problem "$KUBELET_CERTIFICATE")
	[[ -z $problem ]] || {
		echo "$problem"
		return 1
	}
}
