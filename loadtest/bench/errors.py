"""The bench's one exception."""


class BenchError(Exception):
    """The bench cannot run, or what it measures failed; str() says what is wrong and what to do."""
