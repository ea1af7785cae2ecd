"""A stand-in for the `nats` command on machines without it, with the few arguments that the shell example uses.

nats pub [--quiet] [--no-templates] SUBJECT BODY
nats reply SUBJECT --command COMMAND
"""

import argparse
import os
import shlex
import socket
import subprocess
import sys

from fanline.protocol.nats import commands
from fanline.protocol.nats.addresses import parse_url
from fanline.protocol.nats.commands import PING, PONG, Login
from fanline.protocol.nats.replies import ServerInfo


class Connection:
    """A connection to NATS_URL, ready for use."""

    def __init__(self) -> None:
        address = parse_url(os.environ["NATS_URL"])
        self._socket = socket.create_connection((address.host, address.port))
        self.received = self._socket.makefile("rb")
        login = Login(address.user, address.password, address.token)
        self.send(commands.hello(ServerInfo(), login, name="nats", tls=False))
        self.wait()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def flush(self) -> None:
        """Wait until the server has taken everything sent so far."""
        self.send(PING)
        self.wait()

    def wait(self) -> None:
        """For the answer to a PING."""
        while (line := self.received.readline()) != PONG:
            assert line.startswith(b"INFO "), line


def publish(subject: str, body: str) -> None:
    connection = Connection()
    connection.send(commands.publish(subject, body.encode()))
    connection.flush()


def reply(subject: str, command: str) -> None:
    connection = Connection()
    connection.send(f"SUB {subject} NATS-RPLY-22 1\r\n".encode())
    while line := connection.received.readline():
        if line == PING:
            connection.send(PONG)
        elif line.startswith((b"MSG ", b"HMSG ")):
            verb, _, _, answer_to, *sizes = line.decode().split()
            body = connection.received.read(int(sizes[-1]) + 2)[:-2]
            body = body[int(sizes[0]) :] if verb == "HMSG" else body
            environ = os.environ | {"NATS_REQUEST_SUBJECT": subject, "NATS_REQUEST_BODY": body.decode()}
            told = subprocess.run(shlex.split(command), env=environ, capture_output=True, check=False)
            connection.send(commands.publish(answer_to, told.stdout + told.stderr))


def main(args: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="nats")
    verbs = parser.add_subparsers(dest="verb", required=True)
    pub = verbs.add_parser("pub")
    pub.add_argument("--quiet", action="store_true")
    pub.add_argument("--no-templates", action="store_true")
    pub.add_argument("subject")
    pub.add_argument("body")
    rep = verbs.add_parser("reply")
    rep.add_argument("subject")
    rep.add_argument("--command", required=True)
    said = parser.parse_args(args)
    if said.verb == "pub":
        publish(said.subject, said.body)
    else:
        reply(said.subject, said.command)


if __name__ == "__main__":
    main(sys.argv[1:])
