"""Turns a lab.yaml into a running, verified, highly available Kubernetes cluster."""
