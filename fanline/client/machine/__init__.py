"""What a client of Fanline decides, for every kind of program: a state machine without I/O.

A shell (client/shell.py for Trio) tells `ClientMachine` what has happened and performs what it answers. Nothing here
imports trio, asyncio or a socket, and the time is an argument. docs/explanation/client.md says how to write a shell.
"""
