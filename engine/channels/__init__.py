"""Channels in a worker: who gets what, the log of a durable channel, its recovery, and how a client joins."""
