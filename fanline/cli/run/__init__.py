"""`fanline run`: a command as a task."""
