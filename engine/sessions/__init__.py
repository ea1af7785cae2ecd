"""Sessions: what one client may say, and what it is answered."""
