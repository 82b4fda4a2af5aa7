"""Provider plugins and servers that stand in for a cloud on one machine."""
