"""The commands that show tasks: `fanline tail` and `fanline tasks`."""
