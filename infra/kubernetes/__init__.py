"""Components on any Kubernetes cluster."""
