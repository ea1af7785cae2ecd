"""Presence: who is on a channel, over all workers."""
