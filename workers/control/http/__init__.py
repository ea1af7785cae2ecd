"""How requests come in, who sends them, and the form of the answers."""
