"""The host of an address."""

from ipaddress import ip_address


def is_ip(host: str) -> bool:
    """Whether it is an IP address, and no name that has to be looked up."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
