"""What a stack's cluster does now: read through its API, priced by the catalog, held against the registered plan."""
