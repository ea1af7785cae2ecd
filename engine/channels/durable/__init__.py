"""Durable channels in a worker: the sequence of their messages, its log, and how what is missing is asked for."""
