"""Requests on NATS, to JetStream and to other programs, and their replies."""
