"""The client: subscriptions over one WebSocket that comes back by itself."""
