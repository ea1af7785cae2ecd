"""WebSocket as bytes: the opening handshake, frames, and permessage-deflate (RFC 6455, RFC 7692)."""
