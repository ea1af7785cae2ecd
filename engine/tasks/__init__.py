"""Tasks in a worker: the fold of one channel, and the monitor that watches over all of the cluster."""
