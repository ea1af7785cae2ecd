"""Notifications: what is asked for, the templates, and what the user is shown. Without I/O."""
