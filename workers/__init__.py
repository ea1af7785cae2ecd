"""Processes: the supervisor, its workers, the embedded nats-server, listening sockets and settings. Linux only.

`python -m workers` is what `fanline serve` runs.
"""
