"""The training core: `python -m workloads.training --config training.yaml`."""
