"""What plain clients say to each other."""
