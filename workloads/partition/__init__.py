"""Split execution: the first layers of a model on an edge device, the rest in the cloud."""
