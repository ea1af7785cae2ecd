"""Producers of tasks: what a job reports goes to viewers, and their calls and answers come back."""
