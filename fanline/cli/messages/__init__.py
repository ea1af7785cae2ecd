"""The commands that send and receive: `fanline pub`, `fanline sub` and `fanline notify`."""
