"""Connections: from an accepted socket to its end."""
