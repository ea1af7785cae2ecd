"""Channels in a worker: who hears what, the log of a durable channel, its recovery, and how a client joins."""
