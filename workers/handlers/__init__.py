"""The process `handlers`: the application's own Python, and its webhooks, under asyncio."""
