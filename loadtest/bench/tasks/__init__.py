"""The bench of one task with very many viewers."""
