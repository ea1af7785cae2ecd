"""The task model: the states as one table, the events, the snapshot, the fold from events to it, and the estimate."""
