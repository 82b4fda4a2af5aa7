"""What models ask of a chip, as data: FLOPs, bytes, parameters and activations by layer."""

from pathlib import Path

_PROJECT = Path(__file__).parents[2]
FOLDERS = (_PROJECT / "stacks", _PROJECT)
"""Against which a stack's paths of profiles are looked up."""
