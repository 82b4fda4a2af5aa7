"""Amazon Web Services on one machine."""
