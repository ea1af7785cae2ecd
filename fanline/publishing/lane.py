"""The messages of one namespace on their way to NATS. Without I/O; in the loop's thread, with the time as an argument.

| message is      | it waits for                          | and then                                               |
|-----------------|---------------------------------------|--------------------------------------------------------|
| unsent          | a connection, what its namespace is   | it is sent                                             |
| sent, durable   | JetStream's acknowledgement           | done; without an answer or a connection, unsent again  |
| sent, ephemeral | the server's confirmation             | done; without a connection, failed                     |

What is durable is sent again under the same store id, so that JetStream stores it once; what is ephemeral is sent at
most once. Both fail when their time is over.
"""

import math
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, takewhile

from fanline.errors import NotPublished
from fanline.nats.jetstream import JetStreamAway, check_answer, find_stream
from fanline.nats.requests import NatsRequests
from fanline.producer.waiting import finish
from fanline.protocol.channels import namespace_of
from fanline.protocol.compat.board import decode_answer
from fanline.protocol.nats.commands import header_bytes
from fanline.protocol.nats.names import BOARD_SUBJECT, MESSAGE_ID
from fanline.protocol.nats.parser import NatsError, NatsMessage

DURABLE_SECONDS = 30.0
"""For a durable message, from the call on, if it does not say otherwise. JetStream knows the store ids of the last 120
seconds.
"""
EPHEMERAL_SECONDS = 5.0
"""For an ephemeral one, which is of no use later."""
NEVER_REACHED_SECONDS = 2.0
"""For any, if no attempt to connect has ever succeeded: then it is rather the address that is wrong. Not for those that
are to be kept for longer than DURABLE_SECONDS.
"""
RESEND_SECONDS = 5.0
"""How long JetStream may be silent."""
RETRY_SECONDS = 0.5
"""After JetStream said that it is not available."""
EPHEMERAL_FOR_SECONDS = 10.0
"""Then JetStream is asked again: a server that has just started may have made a stream."""
BOARD = "board"
"""The lane of updates of task boards, for the engine; no namespace can have this name."""
_NEVER = math.inf


@dataclass(slots=True, eq=False)
class OutgoingMessage:
    """One message, from the call to its end."""

    channel: str
    subject: str
    payload: bytes
    store_id: str
    since: float
    """The time of the call."""
    must_be_stored: bool = False
    """Whether it is useless unless a stream stores it."""
    was_sent: bool = False
    keep: float = DURABLE_SECONDS
    """How long it is sent again if it is durable, in seconds."""
    done: Future[None] = field(default_factory=Future)

    @property
    def headers(self) -> dict[str, str]:
        return {MESSAGE_ID: self.store_id}

    @property
    def size(self) -> int:
        return len(self.payload) + header_bytes(self.headers)

    @property
    def lane(self) -> tuple[str, float]:
        """Messages of one lane keep their order, and so their time is over in that order."""
        return BOARD if self.subject == BOARD_SUBJECT else namespace_of(self.channel), self.keep

    def refuse(self, why: str) -> None:
        """It is certain that it is not published."""
        finish(self.done, NotPublished(f"the message on {self.channel} was not published: {why}"))

    def give_up(self, why: str) -> None:
        """Nothing more is done for it; if it was sent, it may have arrived."""
        if self.was_sent:
            text = f"it is not known whether the message on {self.channel} was published: {why}"
            finish(self.done, NotPublished(text))
        else:
            self.refuse(why)


class Lane:
    """Those of one namespace that are all kept for `keep` seconds, in the order of the calls."""

    def __init__(self, requests: NatsRequests, keep: float) -> None:
        self._requests = requests
        self._keep = keep
        self._durable: bool | None = None  # None: not known
        self._asking = False  # what the namespace is
        self._asked_at = -math.inf
        self._unsent: dict[OutgoingMessage, None] = {}
        self._sent: dict[OutgoingMessage, None] = {}
        self._why = ""  # what keeps them from being published
        self._heard = self._away = False  # since the last step: JetStream said something, that it is not available
        self._heard_at = self._retry_at = -math.inf

    def __bool__(self) -> bool:
        return bool(self._unsent or self._sent)

    def add(self, message: OutgoingMessage) -> None:
        self._unsent[message] = None

    # --- the connection ------------------------------------------------------------------------------------------

    def connected(self) -> None:
        """On a new connection. Its server may have other settings than the last one."""
        self._durable, self._asking, self._why = None, False, ""

    def lost(self, why: str) -> None:
        self._why = why
        if self._durable is False:
            for message in self._sent:
                message.give_up(why)
            self._sent.clear()
        self._take_back()

    def denied(self, subject: str | None, why: str) -> None:
        """The server does not permit to publish on a subject; None: what is asked for, or on which subject, is not
        known.
        """
        for message in [*self._sent, *self._unsent]:
            if subject is None:
                message.give_up(why)
                self._remove(message)
            elif subject == message.subject:
                message.refuse(why)
                self._remove(message)
        self._asking = self._asking and subject is not None

    def end(self, why: str) -> None:
        """Nothing is published any more."""
        for message in chain(self._sent, self._unsent):
            message.give_up(why)
        self._unsent.clear()
        self._sent.clear()

    # --- what is due ---------------------------------------------------------------------------------------------

    def step(self, now: float, *, connected: bool, reached: bool) -> float:
        """Do what is due. `reached`: there has been a connection. Returns the time by which to be called again."""
        due = self._expire(now, reached=reached)
        if not self or not connected:
            return due
        self._listen(now)
        if now < self._retry_at:
            return min(due, self._retry_at)
        if self._durable is False and not self._sent and now >= self._asked_at + EPHEMERAL_FOR_SECONDS:
            self._durable = None
        if self._durable is None:
            self._ask(now)
        elif self._unsent:
            self._send(now)
        return min(due, self._heard_at + RESEND_SECONDS if self._sent or self._asking else _NEVER)

    def _expire(self, now: float, *, reached: bool) -> float:
        """Those whose time is over fail. Returns when the next one's is."""
        seconds = EPHEMERAL_SECONDS if self._durable is False else self._keep
        if not reached and self._why and self._keep <= DURABLE_SECONDS:
            seconds = NEVER_REACHED_SECONDS
        why = f"{self._why or 'NATS has not answered'} (after {seconds:g} seconds)"
        late = takewhile(lambda message: message.since + seconds <= now, chain(self._sent, self._unsent))
        for message in list(late):
            message.give_up(why)
            self._remove(message)
        oldest = next(chain(self._sent, self._unsent), None)
        return _NEVER if oldest is None else oldest.since + seconds

    def _listen(self, now: float) -> None:
        if self._away:
            self._retry_at = now + RETRY_SECONDS
        if self._heard or not (self._sent or self._asking):
            self._heard_at = now
        elif now >= self._heard_at + RESEND_SECONDS:
            self._heard_at, self._why, self._asking = now, "NATS did not answer", False
            if self._durable:
                self._durable = None  # perhaps it no longer is
                self._take_back()
        self._heard = self._away = False

    def _take_back(self) -> None:
        """What was sent is sent again."""
        if self._sent:
            self._unsent, self._sent = {**self._sent, **self._unsent}, {}

    def _remove(self, message: OutgoingMessage) -> None:
        self._unsent.pop(message, None)
        self._sent.pop(message, None)

    # --- what the namespace is -----------------------------------------------------------------------------------

    def _ask(self, now: float) -> None:
        if not self._asking:
            self._asking, self._asked_at, self._heard_at = True, now, now
            find_stream(self._requests, next(iter(self._unsent)).subject, self._take_stream)

    def _take_stream(self, answer: bool | NatsError) -> None:
        self._asking, self._heard = False, True
        if isinstance(answer, bool):
            self._durable = answer
            if not answer:
                self._refuse_unstored()
        elif isinstance(answer, JetStreamAway):
            self._wait_for_jetstream(answer)
        else:
            self.denied(None, str(answer))

    def _refuse_unstored(self) -> None:
        for message in [each for each in self._unsent if each.must_be_stored]:
            message.refuse("nothing stores it there: no Fanline server of this version uses that NATS")
            self._remove(message)

    # --- publishing ----------------------------------------------------------------------------------------------

    def _send(self, now: float) -> None:
        if not self._sent:
            self._heard_at = now
        messages = self._next()
        sent = [message for message in messages if self._fits(message)]
        self._sent |= dict.fromkeys(sent)
        for message in sent:
            message.was_sent = True
            if self._durable:
                take = partial(self._take_acknowledgement, message)
                self._requests.ask(message.subject, message.payload, take, message.headers)
            else:
                self._requests.publish(message.subject, message.payload, message.headers)
        if sent and not self._durable:
            self._requests.confirm(partial(self._take_confirmation, sent))

    def _next(self) -> list[OutgoingMessage]:
        """Those that are sent now, and so no longer unsent."""
        messages, self._unsent = list(self._unsent), {}
        return messages

    def _fits(self, message: OutgoingMessage) -> bool:
        most = self._requests.info.max_payload
        if message.size > most:
            message.refuse(f"it has {message.size} bytes, and the NATS server accepts at most {most}")
        return message.size <= most

    def _take_acknowledgement(self, message: OutgoingMessage, answer: NatsMessage) -> None:
        self._heard = True
        try:
            self._check(answer.payload)
        except JetStreamAway as error:
            self._wait_for_jetstream(error)
        except NatsError as error:
            message.refuse(str(error))
            self._remove(message)
        else:
            finish(message.done, None)
            self._remove(message)

    def _wait_for_jetstream(self, error: JetStreamAway) -> None:
        self._away, self._why = True, str(error)
        self._take_back()

    def _take_confirmation(self, messages: list[OutgoingMessage], error: NatsError | None) -> None:
        if error is not None:
            return  # the connection is lost, which `lost` handles
        self._heard = True
        for message in messages:
            if message in self._sent:
                finish(message.done, None)
                self._remove(message)

    def _check(self, payload: bytes) -> None:
        """NatsError if this answer does not say that a message is stored."""
        check_answer(payload)


class BoardLane(Lane):
    """The updates of items of task boards, which the engine answers as JetStream answers others. Each is sent when the
    one before is answered: whichever worker takes it, it finds what the last one has said of the item.
    """

    def _ask(self, now: float) -> None:
        """Nothing need be asked."""
        self._durable = True
        self._send(now)

    def _next(self) -> list[OutgoingMessage]:
        first = next(iter(self._unsent), None)
        if first is None or self._sent:
            return []
        del self._unsent[first]
        return [first]

    def _check(self, payload: bytes) -> None:
        answer = decode_answer(payload)
        if answer.error:
            raise (JetStreamAway if answer.retry else NatsError)(answer.error)
