"""The supervisor and its processes: listening sockets, worker slots, restarts."""
