"""Pinned command-line tools that are built here, and the set-up that installs them."""
