#!/bin/bash
# Runs in a virtual machine as a user would work there: imports the golden machine without a network, asks the
# doctor, boots one machine of a lab with Vagrant, and looks at what runs in it. Says each answer on the
# second serial port, below a line that names it; the test on the host judges.
set -uo pipefail

kit=/root/kit lab=/root/lab/lab.yaml
cd /root || exit

say() { printf '\n## %s %s\n' "$(cut -d' ' -f1 /proc/uptime)" "$1"; }
on() { docker exec --interactive small-lab-cp1 "$@"; }

# Until a command succeeds; its last words if it never does.
until_true() {
	local words
	for _ in $(seq 240); do
		words=$("$@" 2>&1) && {
			echo "$words"
			return 0
		}
		sleep 1
	done
	echo "not within 240 s: $words"
	return 1
}

say cgroups
stat --file-system --format %T /sys/fs/cgroup
say docker
until_true docker version --format '{{.Server.Version}}'
say routes
ip -4 route show default
say import
"$kit/inv" bake --import /root/lab.tar --lab "$lab" --yes
say doctor
"$kit/inv" doctor --json --lab "$lab"
code=$?
say doctor-code
echo "$code"
say kernel
uname -r
nproc
say render
"$kit/inv" render --lab "$lab"
say vagrant
(cd /root/lab/.lab && HA_LAB_BOOT_ONLY=1 VAGRANT_CHECKPOINT_DISABLE=1 vagrant up cp1 --no-provision --provider docker)
say inspect
docker inspect --format '{{json .HostConfig}}' small-lab-cp1
say boot
until_true on systemctl is-system-running
say failed-units
on systemctl list-units --failed --plain --no-legend
say node-cgroups
on stat --file-system --format %T /sys/fs/cgroup
say containerd
on systemctl start containerd
until_true on ctr version
say images
on ctr --namespace k8s.io images ls -q
say kubelet
pause=$(on ctr --namespace k8s.io images ls -q | grep /pause:)
on mkdir -p /etc/standalone/manifests
on tee /etc/standalone/kubelet.yaml <<-END
	apiVersion: kubelet.config.k8s.io/v1beta1
	kind: KubeletConfiguration
	authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
	authorization: {mode: AlwaysAllow}
	staticPodPath: /etc/standalone/manifests
	cgroupDriver: systemd
	containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
	failSwapOn: false
END
on tee /etc/standalone/manifests/still.yaml <<-END
	apiVersion: v1
	kind: Pod
	metadata: {name: still}
	spec:
	  hostNetwork: true
	  containers: [{name: still, image: "$pause", imagePullPolicy: Never, resources: {limits: {memory: 32Mi}}}]
END
on systemd-run --unit standalone-kubelet kubelet --config /etc/standalone/kubelet.yaml --hostname-override cp1
say healthz
until_true on curl --silent --show-error --fail http://127.0.0.1:10248/healthz
say pod
until_true on bash -c 'curl --silent --fail --insecure https://127.0.0.1:10250/pods | grep -o "\"ready\":true"'
say pod-memory
on bash -c 'cat /sys/fs/cgroup/kubepods.slice/kubepods-burstable.slice/*/cri-containerd-*/memory.max'
say kubelet-log
on journalctl --unit standalone-kubelet --no-pager --lines 15
say doctor-again
"$kit/inv" doctor --json --lab "$lab"
say end
