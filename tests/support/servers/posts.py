"""HTTP as a scripted backend speaks it: it reads one POST and answers with a status."""

import trio

Post = tuple[str, dict[str, str], bytes]
"""The path, the headers with names in lower case, and the body."""


async def read_post(stream: trio.SocketStream) -> Post | None:
    """The next request; None if the connection ends first."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := await stream.receive_some()):
            return None
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    while len(body) < int(headers["content-length"]):
        body += await stream.receive_some()
    return first.split()[1], headers, bytes(body)


async def answer_post(stream: trio.SocketStream, status: int) -> None:
    """Answer it without a body; a caller that does not read is left after 5 s."""
    with trio.move_on_after(5):
        await stream.send_all(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
