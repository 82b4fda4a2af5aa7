"""Data sets in a bucket: how they are written, ordered and read."""
