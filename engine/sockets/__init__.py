"""Sockets: those of clients, and those with a path on this machine."""
