"""The lab kit: lab.yaml in, a checked, highly available Kubernetes cluster out."""
