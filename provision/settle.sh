#!/bin/bash
# For a bare `vagrant up`: takes what Vagrant's file provisioner put under /tmp to where the scripts
# look for it. `./inv up` puts it there itself, through one ssh session.
set -euo pipefail

rm -rf /opt/ha-lab
mkdir -p /opt/ha-lab
cp -r /tmp/ha-lab/. /opt/ha-lab/
chmod 755 /opt/ha-lab/*.sh # some start others, and units run them
install -d -m 700 /run/ha-lab
for file in /tmp/ha-lab-secrets/*; do
	[ ! -e "$file" ] || install -m 600 "$file" "/run/ha-lab/${file##*/}"
done
rm -rf /tmp/ha-lab /tmp/ha-lab-secrets
