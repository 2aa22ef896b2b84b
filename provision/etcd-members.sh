# shellcheck shell=bash
# etcd's members, and the leadership of one that is about to leave or to be restarted.
# Sourced after kubernetes.sh.

# Members are lines of `ID, status, name, peer URLs, client URLs, is learner`.
members() { etcd member list --write-out simple; }
voting_members_without() { awk -F', ' -v id="$1" '$1 != id "" && $6 == "false"'; }
client_urls() { awk -F', ' '$5 != "" { sub(/,.*/, "", $5); print $5 }'; }
id_of_url() { awk -F', ' -v url="$1" '$5 == url || index($5, url ",") == 1 { print $1 }'; }

# healthy_among URLS: a line for each that answers with the agreement of a majority.
healthy_among() {
	[[ -n $1 ]] || return 0
	{ etcd_at "${1//$'\n'/,}" endpoint health --write-out simple 2>/dev/null || true; } | sed -n 's/ is healthy: .*//p'
}

# leads URL: the member at this client URL is etcd's leader.
leads() {
	local ids='$1 == "\"MemberID\"" { id = $2 "" } $1 == "\"Leader\"" { leader = $2 "" }'
	etcd_at "$1" endpoint status --write-out fields 2>/dev/null |
		awk -F' : ' "$ids"' END { exit !(id != "" && id == leader) }'
}

# Removing the leader is safe, but nothing can be written during the election that follows (etcd.io, "Runtime
# reconfiguration"). Where its leadership can't be moved, that is what happens.
move_leadership() { # MEMBERS MEMBER NAME
	local url heir
	url=$(client_urls <<<"$2")
	if [[ -n $url ]] && leads "$url"; then
		heir=$(healthy_among "$(voting_members_without "${2%%,*}" <<<"$1" | client_urls)" | head -n 1)
		if [[ -z $heir ]] || ! etcd_at "$url,$heir" move-leader "$(id_of_url "$heir" <<<"$1")"; then
			log "etcd's leadership was not moved away from $3; it will elect a new leader"
		fi
	fi
}
