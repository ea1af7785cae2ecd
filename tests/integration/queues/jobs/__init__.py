"""Programs with jobs, for the workers of each queue, and what they report."""
