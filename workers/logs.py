"""Log lines of all our processes: time, level, source, message, on stderr."""

import logging


def configure_logging(source: str) -> None:
    """`source` is the process as a person knows it, as in "worker 1"."""
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s %(levelname)s {source}: %(message)s")
