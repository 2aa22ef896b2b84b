# shellcheck shell=bash
# Read by every bash of these tests before its script (BASH_ENV): waiting costs no time.
sleep() { SECONDS=$((SECONDS + 20)); }
