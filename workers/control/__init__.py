"""The control process: the management API and the metrics, over HTTP. It is the source of truth for nothing."""
