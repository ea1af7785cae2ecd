"""`fanline serve` and `fanline nats-url`, and what a server needs beyond the base installation."""
