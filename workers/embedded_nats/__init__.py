"""The embedded nats-server: its process, its data directory, how much it may store, and its starts."""
