"""The inference core: `python -m workloads.serving --config serving.yaml`."""
