"""The golden machine: Debian, Kubernetes and all images, built once and named by the hash of its contents."""
