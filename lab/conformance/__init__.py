"""The end-to-end suite by which Kubernetes projects judge clusters, run against the lab from this host."""
