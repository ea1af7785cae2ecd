"""The terminal of a command under `fanline run --tty`, and ours around it."""
