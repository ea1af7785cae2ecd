"""Hooks in a worker: it publishes events, and passes questions that it cannot answer to the application."""
