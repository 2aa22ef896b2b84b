"""The verbs' code that is not a plan: reports, logs, kubeconfig, tests, the benchmark."""
