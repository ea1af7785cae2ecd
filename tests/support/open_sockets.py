"""The sockets that this process has open, as the kernel lists them."""

from pathlib import Path


def connections_to(port: int) -> set[str]:
    """The connections of this process to a port of this machine, each under a name that a forked copy has, too."""
    ours = {_target(fd) for fd in Path("/proc/self/fd").iterdir()}
    tables = [Path(f"/proc/net/{table}") for table in ("tcp", "tcp6")]
    lines = [line.split() for table in tables if table.exists() for line in table.read_text().splitlines()[1:]]
    return {
        f"socket:[{line[9]}]"
        for line in lines
        if int(line[2].rpartition(":")[2], 16) == port and f"socket:[{line[9]}]" in ours
    }


def _target(fd: Path) -> str:
    try:
        return str(fd.readlink())
    except OSError:  # that of the listing itself
        return ""
