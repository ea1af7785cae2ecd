"""What runs inside one worker: accept, connections, outboxes, hub, flusher, sessions, and the bus to the rest.

The hub and everything it calls are synchronous: a decision is never cut in two by an await. Only connections, the
flusher, the heartbeat and the bus wait.
"""

if __name__ != "fanline.engine":  # from the root of the repository: a second copy of every class would be loaded
    raise ImportError("this package is imported as fanline.engine; `engine` is only the name of its folder")
