"""Clients' calls that others answer: a task's producer, the application, the control process."""
