"""Watching the cluster: statistics for the monitor, records of minutes, and alarms, by one of its control processes."""
