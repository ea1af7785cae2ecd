"""What starts servers, and what a server of a test is given: a port, TLS files, a backend to call."""
