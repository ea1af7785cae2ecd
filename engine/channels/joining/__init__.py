"""How a client joins a channel: start position, history, snapshot, then live messages."""
