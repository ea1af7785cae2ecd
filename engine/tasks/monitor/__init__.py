"""The task monitor: every worker monitors its shares of all tasks of the cluster."""
