"""What the figures in the documents come from: each module is a command."""
