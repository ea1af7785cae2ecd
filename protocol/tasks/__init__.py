"""The task model: the states as one table, the events, the fold that makes a snapshot of them, and the estimate."""
