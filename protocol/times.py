"""Times as clients and programs are shown them."""

from datetime import UTC, datetime


def iso_time(unix_ms: int | None) -> str | None:
    """Unix milliseconds as ISO 8601 text in UTC; None for a time beyond the calendar (year 9999)."""
    try:
        moment = datetime.fromtimestamp((unix_ms or 0) / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
