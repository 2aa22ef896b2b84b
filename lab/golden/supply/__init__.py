"""Where Kubernetes comes from: its Go modules, built from source and turned into images."""
