"""Sessions: what one client may send, and how it is answered."""
