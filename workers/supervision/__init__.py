"""The supervisor and its children: listening sockets, worker slots, restarts."""
