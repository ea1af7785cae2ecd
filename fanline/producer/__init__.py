"""Producers of tasks: what a job says goes to viewers, and what they say comes back."""
