"""How Amazon Web Services builds each component."""
