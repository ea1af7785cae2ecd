"""Notifications: taken from their work queue, decided, and delivered by WebSocket, e-mail, SMS and push."""
