"""Floods: what a client that takes all it can get costs the others."""
