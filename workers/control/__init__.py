"""The control process: the management API and the metrics, over HTTP. It holds no truth of its own."""
