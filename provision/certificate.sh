# shellcheck shell=bash
# What bash itself can read of a certificate: whether it is complete, from when on and until when it is valid. openssl takes
# 20 ms of CPU for each, and a control plane has a dozen. Signatures are for those who are shown the certificate.
# Sourced.

# The value of each digit of base64 (RFC 4648); that of padding is 0.
declare -A SEXTETS
fill_sextets() {
	local digits=ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/ i
	for ((i = 0; i < 64; i++)); do SEXTETS[${digits:i:1}]=$i; done
	SEXTETS["="]=0
}
fill_sextets
readonly SEXTETS

# The dates of each certificate that was read before, by its digits: of most, one function asks whether they are complete
# and another when they are valid.
declare -A DATES

# certificate_dates TEXT: puts the dates of the first certificate in TEXT (PEM) into `begins` and `ends`, in seconds since
# 1970. Fails where TEXT has no complete one: a certificate says how many bytes it has, and its lines must have as many.
certificate_dates() {
	local LC_ALL=C encoded padding size at=0 content next byte length expected group=-1 bits seconds
	local begin="-----BEGIN CERTIFICATE-----" end="-----END CERTIFICATE-----"
	[[ $1 == *"$begin"*"$end"* ]] || return 1
	encoded=${1#*"$begin"}
	encoded=${encoded%%"$end"*}
	encoded=${encoded//[$' \r\n']/}
	if [[ -n $encoded && -n ${DATES[$encoded]-} ]]; then
		# shellcheck disable=SC2034 # for the caller
		begins=${DATES[$encoded]% *} ends=${DATES[$encoded]#* }
		return 0
	fi
	padding=${encoded##*[!=]}
	[[ ${encoded%"$padding"} != *[!A-Za-z0-9+/]* ]] && ((${#padding} <= 2 && ${#encoded} % 4 == 0)) || return 1
	size=$((${#encoded} * 3 / 4 - ${#padding}))
	# Certificate and tbsCertificate (RFC 5280, 4.1). 0x30 is a SEQUENCE, 0x02 an INTEGER (X.690).
	der_value 0x30 && ((next == size)) || return 1
	at=$content
	der_value 0x30 || return 1
	at=$content
	# version, which has a tag of its own and may be left out; then serialNumber, signature, issuer
	! der_value 0xa0 || at=$next
	for expected in 0x02 0x30 0x30; do
		der_value "$expected" || return 1
		at=$next
	done
	# validity: notBefore, notAfter
	der_value 0x30 || return 1
	at=$content
	der_time || return 1
	begins=$seconds at=$next
	der_time || return 1
	ends=$seconds
	DATES[$encoded]="$begins $ends"
}

# der_value TAG: succeeds if a value with this tag begins at byte `at`. Its content begins at `content` and has `length`
# bytes; the value after it is at `next`.
der_value() {
	local more
	der_byte "$at"
	((byte == $1)) || return 1
	der_byte $((at + 1))
	content=$((at + 2)) length=$byte
	if ((byte > 0x80)); then # the number of bytes that have the length
		more=$((byte - 0x80)) length=0
		((more <= 4)) || return 1
		for (( ; more > 0; more--)); do
			der_byte "$content"
			content=$((content + 1)) length=$((length << 8 | byte))
		done
	fi
	next=$((content + length))
	((next <= size))
}

# der_time: puts the time at byte `at` into `seconds`: a UTCTime or a GeneralizedTime, both in UTC (RFC 5280, 4.1.2.5).
der_time() {
	local digits=0 place year month day
	if der_value 0x17; then
		((length == 13)) || return 1
	else
		der_value 0x18 && ((length == 15)) || return 1
	fi
	for ((place = content; place < next - 1; place++)); do
		der_byte "$place"
		((byte >= 48 && byte <= 57)) || return 1
		digits=$((10 * digits + byte - 48))
	done
	((length == 15)) || digits=$((digits + (digits < 500000000000 ? 20000000000000 : 19000000000000)))
	year=$((digits / 10000000000)) month=$((digits / 100000000 % 100)) day=$((digits / 1000000 % 100))
	# The number of the day since 1970, in years that begin in March.
	((month > 2)) || year=$((year - 1)) month=$((month + 12))
	day=$((day + 365 * year + year / 4 - year / 100 + year / 400 + (153 * (month - 3) + 2) / 5 - 719469))
	seconds=$((86400 * day + 3600 * (digits / 10000 % 100) + 60 * (digits / 100 % 100) + digits % 100))
}

# Puts byte number $1 of what `encoded` encodes into `byte`, or -1 behind its end. Four digits are three bytes: those of
# `group` are in `bits`.
der_byte() {
	local digits
	if (($1 / 3 != group)); then
		group=$(($1 / 3))
		digits=${encoded:4*group:4}
		[[ -n $digits ]] || {
			group=-1 byte=-1
			return 0
		}
		bits=$((SEXTETS[${digits:0:1}] << 18 | SEXTETS[${digits:1:1}] << 12 | SEXTETS[${digits:2:1}] << 6 | SEXTETS[${digits:3:1}]))
	fi
	byte=$((bits >> (16 - 8 * ($1 % 3)) & 255))
}
