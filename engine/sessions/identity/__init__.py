"""Who a session is, and until when."""
