"""The bus: how a worker reaches other workers and the store. The interface, the bus on NATS, its twin in memory."""
