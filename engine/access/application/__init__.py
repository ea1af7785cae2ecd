"""The application's own decisions: its handlers say who a client is and what it may do."""
