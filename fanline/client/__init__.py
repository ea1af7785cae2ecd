"""The client: subscriptions over one WebSocket that reconnects by itself."""
