#!/bin/bash
# The parts of a recovery from a backup on one control plane or etcd machine, in the order of lab/plans/recover.py (etcd, "Disaster
# recovery"; kubernetes.io, "Restoring an etcd cluster"). Each part can be repeated.
#
#   recover.sh check                    prints a report, a line each: `member yes|no`, `etcd VERSION`, `free BYTES`,
#                                       `token TOKEN`, `problem REASON`
#   recover.sh stop                     moves the manifests of etcd and of what uses it aside, and waits until all have ended
#   recover.sh quiet                    fails if one of them still runs, and names it
#   recover.sh receive SHA256           the tar of the backup is on standard input; puts its snapshot beside etcd's data
#   recover.sh restore TOKEN CLUSTER BUMP   creates a new data folder from the snapshot, for the member of this machine,
#                                       with its revision raised by BUMP; `--stdin`: with this run's secrets, and the keys
#                                       that control planes share
#   recover.sh keys                     installs the keys that control planes share, which `--stdin` has brought; only where
#                                       etcd has machines of its own, else `restore` does so
#   recover.sh start NAME               puts one manifest back, and waits for what it starts
#   recover.sh nodes                    deletes Nodes of machines that the lab no longer has
#   recover.sh subnet NAME              prints the subnet of a Node's pods, nothing if there is no such Node
#   recover.sh finish                   removes the files of a recovery
#
# The previous data is kept in /var/lib/etcd/before-recovery until the next recovery.
# shellcheck source=provision/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=provision/kubernetes.sh
source "$HERE/kubernetes.sh"
# shellcheck source=provision/node-files.sh
source "$HERE/node-files.sh"

readonly DATA=/var/lib/etcd OWN=https://127.0.0.1:2379 ASIDE=/etc/kubernetes/aside-by-recovery
# On the disk of etcd's data, so that a folder is moved at once or not at all.
readonly STAGE=$DATA/recovery BEFORE=$DATA/before-recovery
# Inside the data, so that it disappears with that data.
readonly MARK=member/recovery-token
readonly GIVEN=/run/ha-lab/pki

check() {
	local folder
	if [[ -e $KUBELET || -e $ONCE_COMPLETE ]]; then
		echo "member yes"
		[[ $NODE_ROLE == etcd ]] || {
			kubelet_problem
			kubelet_settings_problem
		} | sed 's/^/problem /'
	else
		echo "member no"
	fi
	if command -v etcdutl >/dev/null; then
		etcdutl version | sed -n 's/^etcdutl version: */etcd /p'
	else
		echo "problem it has no etcdutl: its golden machine is of an earlier version of the kit"
	fi
	folder=$DATA
	[[ -d $folder ]] || folder=${DATA%/*}
	echo "free $(df --output=avail --block-size=1 "$folder" | tail -n 1)"
	echo "token $(token)"
}

token() { cat "$DATA/$MARK" 2>/dev/null || echo none; }

running() {
	local name
	for name in "${COMPONENTS[@]}"; do
		! pgrep -x "${name:0:15}" >/dev/null || echo "$name" # the kernel keeps 15 characters of a name
	done
}

ended() {
	local left
	left=$(running)
	[[ -z $left ]] || {
		echo "${left//$'\n'/, } still on $NODE_NAME"
		return 1
	}
}

# What still runs after 20 s is killed: an API server without its etcd takes 100 s to end, and nothing that it has is kept.
ended_or_killed() {
	local name
	! ended || return 0
	((SECONDS < kill_at)) || for name in $(running); do pkill -KILL -x "${name:0:15}" || true; done
	return 1
}

# An API server whose etcd has stopped keeps running, and answers from its cache.
stop() {
	local name kill_at=$((SECONDS + 20 * LAB_PATIENCE))
	mkdir -p "$ASIDE"
	# An etcd machine that was made again has none yet.
	[[ $NODE_ROLE != etcd ]] || service_manager
	[[ ! -e $API_SERVER_ASIDE ]] || mv "$API_SERVER_ASIDE" "$ASIDE/kube-apiserver.yaml"
	for name in "${COMPONENTS[@]}"; do
		[[ ! -e $MANIFESTS/$name.yaml ]] || {
			mv "$MANIFESTS/$name.yaml" "$ASIDE/$name.yaml"
			changed=yes
		}
	done
	start_kubelet # which stops them
	wait_for 120 "the kubelet to stop etcd and what uses it" ended_or_killed
	# Otherwise it would start pods late that have failed before, such as API servers without etcd: it waits longer each time.
	[[ $changed == no ]] || systemctl restart kubelet
}

# The rest of the tar is read, too, or the sender would fail.
receive() {
	local sum
	umask 077
	rm -rf "$STAGE"
	mkdir -p "$STAGE"
	tar -xf - -C "$STAGE" --no-same-owner --no-same-permissions snapshot.db
	cat >/dev/null
	sum=$(hash_of "$STAGE/snapshot.db")
	[[ $sum == "$1" ]] || die "the snapshot did not arrive on $NODE_NAME as it was sent"
	changed=yes
}

restore() { # TOKEN CLUSTER BUMP
	[[ $(token) != "$1" ]] || return 0
	ended || die "etcd, or what uses it, runs on $NODE_NAME, so its data was not touched"
	keys
	rm -rf "$STAGE/restored"
	with_notices "etcdutl to restore the snapshot" etcdutl snapshot restore "$STAGE/snapshot.db" --name "$NODE_NAME" \
		--initial-cluster "$2" --initial-cluster-token "$1" --initial-advertise-peer-urls "https://$NODE_ADDRESS:2380" \
		--data-dir "$STAGE/restored" --bump-revision "$3" --mark-compacted
	echo "$1" >"$STAGE/restored/$MARK"
	chmod 700 "$STAGE/restored/member"
	sync --file-system "$STAGE"
	keep_data
	mv "$STAGE/restored/member" "$DATA/member"
	rm -rf "$STAGE"
	changed=yes
}

# An etcd machine shares no key with others.
keys() {
	[[ ! -d $GIVEN ]] || install_shared_keys
	[[ $NODE_ROLE == etcd ]] || fill "$HERE/kubeadm-init.yaml"
	repair_certificates
}

# Data that an interrupted recovery has restored is not kept: the previous data is kept already.
keep_data() {
	[[ -e $DATA/member ]] || return 0
	if [[ -e $DATA/$MARK && -e $BEFORE/member ]]; then
		rm -rf "$DATA/member"
	else
		rm -rf "$BEFORE"
		mkdir -m 700 "$BEFORE"
		mv "$DATA/member" "$BEFORE/member"
	fi
}

# A machine that was created again since the backup has other keys, and would reject service accounts' tokens of that time.
# Certificates that another CA has signed are removed; repair_certificates creates them again.
install_shared_keys() {
	local file leaf
	cmp -s "$GIVEN/front-proxy-ca.crt" "$PKI/front-proxy-ca.crt" || rm -f "$PKI"/front-proxy-client.{crt,key}
	! runs_etcd || cmp -s "$GIVEN/etcd/ca.crt" "$PKI/etcd/ca.crt" ||
		for leaf in etcd/{server,peer,healthcheck-client} apiserver-etcd-client; do rm -f "$PKI/$leaf".{crt,key}; done
	for file in "${SHARED_PKI[@]}"; do
		place "$([[ $file == *.key ]] && echo 600 || echo 644)" "$PKI/$file" <"$GIVEN/$file" || true
	done
}

start() { # NAME
	[[ ! -e $ASIDE/$1.yaml ]] || {
		mv "$ASIDE/$1.yaml" "$MANIFESTS/$1.yaml"
		changed=yes
	}
	[[ -z $(manifest_problem "$1") ]] || {
		repairs "$(manifest_problem "$1")"
		make_manifest "$1"
		changed=yes
	}
	case $1 in
	etcd) wait_for 180 "etcd to answer with a majority of the restored members" etcd_at "$OWN" endpoint health ;;
	kube-apiserver) wait_for 180 "the API server of $NODE_NAME" own_api_server_ready ;;
	*) wait_for 120 "$1 to run" runs "$1" ;;
	esac
}

# Of a restored member, whose data has the list of members.
make_manifest() {
	if [[ $NODE_ROLE == etcd ]]; then
		fill_etcd_configuration existing "$INITIAL_CLUSTER"
	else
		fill "$HERE/kubeadm-init.yaml"
	fi
	write_manifest "$1"
}

runs() {
	pgrep -x "${1:0:15}" >/dev/null || {
		echo "it does not run"
		return 1
	}
}

# Deletes those of machines that were removed since the backup. Kubelets register those of later machines again. Without the load
# balancer, which may be lost, too: only `up` creates it again, and refuses until the recovery is complete.
only_nodes_of_the_lab() {
	local names name
	names=$(ask_own_api get nodes --output name) || {
		echo "$names"
		return 1
	}
	for name in $names; do
		name=${name#node/}
		[[ " $KUBERNETES_NODES " != *" $name "* ]] || continue
		ask_own_api delete node "$name" --wait=false --ignore-not-found || return 1
	done
}
ask_own_api() { as_admin --server "$OWN_API" "$@"; }

main() {
	local step
	[[ ${1:-} != check ]] || {
		check
		return
	}
	[[ ${1:-} != subnet ]] || {
		ask_own_api get node "$2" --ignore-not-found --output 'jsonpath={.spec.podCIDR}'
		return
	}
	[[ ${1:-} != quiet ]] || {
		ended || exit 1
		return
	}
	if [[ ${1:-} == receive ]]; then # its standard input is not the tar of secrets
		exclusively
		receive "$2"
		finish
		return
	fi
	exclusively
	trap 'remove_secrets; rm -rf "$GIVEN"' EXIT
	[[ ${1:-} != --stdin ]] || { read_secrets && shift; }
	step=$1
	shift
	case $step in
	stop) stop ;;
	restore) restore "$@" ;;
	keys) keys ;;
	start) start "$@" ;;
	nodes) wait_for 120 "the API to delete Nodes of no machine of the lab" only_nodes_of_the_lab ;;
	finish)
		rm -rf "$ASIDE" "$STAGE" "${DATA:?}/$MARK"
		[[ $NODE_ROLE != etcd ]] || note_complete
		;;
	*) die "recover.sh does not know the part $step" ;;
	esac
	finish
}

main "$@"
