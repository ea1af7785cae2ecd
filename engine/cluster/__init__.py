"""What a worker knows of the other workers of its cluster."""
