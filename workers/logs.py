"""The log lines of all processes: time, level, source and message, on stderr."""

import logging

from fanline.protocol.text import HarmlessFormatter


def configure_logging(source: str) -> None:
    """`source` names the process for the reader of the log, as in "worker 1"."""
    handler = logging.StreamHandler()
    handler.setFormatter(HarmlessFormatter(f"%(asctime)s %(levelname)s {source}: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it reports each request with the whole URL
