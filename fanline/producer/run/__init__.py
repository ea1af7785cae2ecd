"""One run of a task, between its job and the exporter: its unsent events, its open question, its end."""
