"""What models ask of a chip, as data: FLOPs, bytes, parameters and activations by layer."""
