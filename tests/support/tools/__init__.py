"""What developers run, as a target of make or with `python -m`."""
