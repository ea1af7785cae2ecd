"""The bus: what a worker knows of the other workers and of the store. The interface, and its twin in memory."""
