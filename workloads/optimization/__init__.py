"""Makes a trained model smaller and faster for a chip, and measures what that costs: `fusion optimize`."""
