"""The golden machine: Debian, Kubernetes and all images, made once and named by the hash of what went in."""
