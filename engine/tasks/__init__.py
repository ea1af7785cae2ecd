"""Tasks in a worker: the fold of one channel, and the monitor of all tasks of the cluster."""
