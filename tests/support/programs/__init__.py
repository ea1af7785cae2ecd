"""The `fanline` command as its users install it, run it beside a server, and interrupt it."""
