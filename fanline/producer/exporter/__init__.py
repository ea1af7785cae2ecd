"""The exporter: a thread that publishes the events of the tasks of its process to NATS."""
