"""What is behind a verb and is no plan of its own: reports, logs, kubeconfig, tests, the benchmark."""
