"""The local cloud's Google Cloud."""
