"""Plain HTTP requests that a worker passes on to the control process, and their answers."""
