"""Hooks: events that the server sends to the application, and messages that the application answers for the server."""
