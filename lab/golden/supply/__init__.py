"""Where Kubernetes comes from: Go modules built from source and packed into images, or upstream."""
