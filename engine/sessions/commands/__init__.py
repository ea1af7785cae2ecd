"""What clients may say, and how each command is performed."""
