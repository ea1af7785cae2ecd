"""Hooks, in a worker: it says what happens, and has the application answer what it does not know itself."""
