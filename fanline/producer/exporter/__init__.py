"""The exporter: one thread of a process, which sends what its tasks say to NATS."""
