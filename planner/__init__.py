"""Which accelerator, where, how many, at what cost and latency; pure Python, no Pulumi."""
