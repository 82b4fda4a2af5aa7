"""A Python language host for the Pulumi engine, for CLIs that were built from source and come without one."""
