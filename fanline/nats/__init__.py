"""Publishing to NATS without a server in between."""
