"""Users' notifications: their inboxes, what they have read, and their preferences."""
