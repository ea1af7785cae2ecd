"""Hooks: what the server tells the application of its own accord, and what clients ask of it through the server."""
