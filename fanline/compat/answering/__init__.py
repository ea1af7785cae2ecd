"""What the server asks of a program, and tells it: the program's own functions, called in its own process."""
