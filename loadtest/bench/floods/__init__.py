"""Floods: what a client that takes everything it can get costs the others."""
