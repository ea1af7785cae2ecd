"""What carries out the client's decisions under Trio, under asyncio, and in a thread for plain code."""
