"""The bench of presence."""
