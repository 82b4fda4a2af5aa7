"""What Google Cloud makes of the components' args."""
