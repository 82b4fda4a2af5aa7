"""Commands of `fusion`, imported only when called."""
