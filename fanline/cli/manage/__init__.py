"""The commands that manage a server: tokens, keys, and the management API."""
