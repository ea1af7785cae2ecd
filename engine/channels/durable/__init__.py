"""Durable channels in a worker: the sequence of their messages, its log, and how missing messages are requested."""
