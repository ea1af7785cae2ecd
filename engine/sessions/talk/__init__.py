"""What clients of the plain dialect say to each other: rooms, statuses, messages, documents."""
