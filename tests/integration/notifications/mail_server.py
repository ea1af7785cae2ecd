"""A real SMTP server, aiosmtpd, which can be made to be slow, to refuse and to die."""

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.header import decode_header, make_header
from typing import Any, AnyStr, NamedTuple

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session


class Mail(NamedTuple):
    """One that was taken."""

    to: tuple[str, ...]
    subject: str
    text: str


class MailServer:
    """Takes e-mail. The callables are called in its own thread."""

    def __init__(self) -> None:
        self.taken: list[Mail] = []
        self.logins: list[bool] = []
        """One for each that was tried: whether it was good."""
        self.answer: Callable[[Mail], str] = lambda mail: "250 OK"
        """What it says to an e-mail."""
        self.answer_recipient: Callable[[str], str] = lambda address: "250 OK"
        self.dies_in_data: Callable[[], bool] = lambda: False
        """Whether it drops the connection in the middle of the e-mail that comes now."""
        self.accepts_logins = True
        self.is_mute = False
        """It takes connections, and says nothing."""
        self.pause = 0.0
        """Seconds before each answer to a command."""
        self.closes_after_each = False
        self.starttls = "220 Ready to start TLS"

    def subjects(self) -> list[str]:
        return [mail.subject for mail in self.taken]

    async def handle_RCPT(  # aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        answer = self.answer_recipient(address)
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # aiosmtpd's name
        content = envelope.content if isinstance(envelope.content, bytes) else b""
        parsed = message_from_bytes(content)
        part = next(part for part in parsed.walk() if part.get_content_type() == "text/plain")
        body = part.get_payload(decode=True)
        subject = str(make_header(decode_header(parsed["Subject"] or "")))
        mail = Mail(tuple(envelope.rcpt_tos), subject, body.decode() if isinstance(body, bytes) else "")
        answer = self.answer(mail)
        if answer.startswith("250"):
            self.taken.append(mail)
        return answer

    def login(self, *said: Any) -> AuthResult:
        given = said[-1]
        self.logins.append(self.accepts_logins and (given.login, given.password) == (b"robot", b"hidden-password"))
        return AuthResult(success=self.logins[-1], handled=False)


class _Connection(SMTP):
    """With the faults of its MailServer."""

    @property
    def _faults(self) -> MailServer:
        faults: MailServer = self.event_handler
        return faults

    async def _handle_client(self) -> None:
        while self._faults.is_mute:
            await self._sleep(0.05)
        await super()._handle_client()

    async def push(self, status: AnyStr) -> None:
        await self._sleep(self._faults.pause)
        await super().push(status)

    async def smtp_DATA(self, arg: str) -> None:
        if self._faults.dies_in_data():
            await self.push("354 End data with <CR><LF>.<CR><LF>")
            await self._reader.readline()
            self._drop()
            return
        await super().smtp_DATA(arg)
        if self._faults.closes_after_each:
            self._drop()

    async def smtp_STARTTLS(self, arg: str) -> None:
        if self._faults.starttls.startswith("220"):
            await super().smtp_STARTTLS(arg)
        else:
            await self.push(self._faults.starttls)

    async def _sleep(self, seconds: float) -> None:
        over = self.loop.create_future()

        def wake() -> None:
            if not over.done():
                over.set_result(None)

        self.loop.call_later(seconds, wake)
        await over

    def _drop(self) -> None:
        assert self.transport is not None
        self.transport.close()


class _AnyPort(Controller):
    def factory(self) -> SMTP:
        return _Connection(self.handler, **self.SMTP_kwargs)

    def _trigger_server(self) -> None:
        server: Any = self.server
        self.port = server.sockets[0].getsockname()[1]  # which it is to reach
        super()._trigger_server()  # type: ignore[no-untyped-call]  # aiosmtpd's


@contextmanager
def mail_server(tls: ssl.SSLContext | None = None) -> Iterator[tuple[MailServer, int]]:
    """In a thread, and its port. `tls`: what it offers STARTTLS with."""
    server = MailServer()
    controller = _AnyPort(
        server, hostname="127.0.0.1", port=0, tls_context=tls, auth_require_tls=False, authenticator=server.login
    )
    controller.start()
    try:
        yield server, controller.port
    finally:
        controller.stop()
