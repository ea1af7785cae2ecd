"""The way out to one connection: transport, outbox, and the backlog of a slow one."""
