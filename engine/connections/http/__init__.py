"""Plain HTTP on the port of the WebSockets: read, answered by the worker, or passed on."""
