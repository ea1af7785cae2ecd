"""The log lines of all processes: time, level, source and message, on stderr."""

import logging


def configure_logging(source: str) -> None:
    """`source` names the process for the reader of the log, as in "worker 1"."""
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s %(levelname)s {source}: %(message)s")
