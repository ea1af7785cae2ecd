"""What a client asks the server about its channels and hands to its subscriptions: a state machine without I/O.

Events go in as method calls, effects come out as values (effects.py), and the time is an argument. Nothing here imports
trio, asyncio or a socket, so that every shell of the client can use it. docs/explanation/client.md shows its two tables
as diagrams.
"""
