"""The benches of durable channels: join, resume and jitter."""
