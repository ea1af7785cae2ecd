"""`fanline demo`: a server, producers and viewers in one."""
