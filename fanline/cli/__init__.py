"""The `fanline` command."""
