"""Which events of a task's producers have been taken: each is taken once, however often it is stored. Pure.

A producer that does not hear of an acknowledgement publishes its event again. JetStream stores each message ID once in
its de-duplication window, but what is published again later than that is stored twice, after newer events. So an event
may carry its serial number: an ID of the producer and a number that grows by one with each event.

The rule is that of an anti-replay window (RFC 4303, section 3.4.3), with a list of the missing numbers instead of a
bitmap, since nearly always none is missing:

| the number is                      | output                      | any other event                                  |
|------------------------------------|-----------------------------|--------------------------------------------------|
| above the highest                  | taken; those that it skips  | taken; those that it skips are missing           |
|                                    | are missing                 |                                                  |
| missing                            | taken: lines are never lost | refused: what it says may be out of date         |
| any other                          | it was taken before         | it was taken before                              |
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.text import is_name

WINDOW = 128
"""Numbers below the highest that may be missing. After a longer leap none is: the fold has missed the beginning."""
MAX_PRODUCERS = 8
"""Producers of one attempt that are remembered, those that spoke last."""

SerialNumber = tuple[Annotated[str, Meta(min_length=1, max_length=64)], Annotated[int, Meta(ge=1, le=2**53)]]
"""The producer's ID, unique to this run of the program, and the number of the event, from 1."""


class Serials(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The numbers of one producer that were taken."""

    producer: str
    last: int
    """The highest."""
    missing: tuple[int, ...] = ()
    """Those below it that were not taken, in ascending order."""


class TakenBeforeError(MessageError):
    """This very event was taken before. That is no mistake of the producer."""

    def __init__(self, number: int) -> None:
        super().__init__(ErrorCode.BAD_STATE, f"event {number} was taken before")


def with_serial(known: tuple[Serials, ...], serial: SerialNumber, *, is_output: bool) -> tuple[Serials, ...]:
    """What was taken of all producers, now that an event is taken, too. The producer that speaks comes last.

    Raises TakenBeforeError, or MessageError: BAD_STATE for an event that comes too late, BAD_MESSAGE for a producer
    whose ID is not a name.
    """
    producer, number = serial
    if len(known) == 1 and known[0].producer == producer:  # as it nearly always is
        return (_after(known[0], number, is_output=is_output),)
    for index, serials in enumerate(known):
        if serials.producer == producer:
            return (*known[:index], *known[index + 1 :], _after(serials, number, is_output=is_output))
    if not is_name(producer):  # looked at once, not with each event
        raise MessageError(ErrorCode.BAD_MESSAGE, "the producer's ID in `serial` has control characters")
    return (*known, _ahead(Serials(producer, 0), number))[-MAX_PRODUCERS:]


def is_ahead(known: tuple[Serials, ...], serial: SerialNumber | None) -> bool:
    """Whether an event is newer than all that was taken of its producer."""
    return serial is None or all(each.producer != serial[0] or serial[1] > each.last for each in known)


def _after(serials: Serials, number: int, *, is_output: bool) -> Serials:
    if number == serials.last + 1 and not serials.missing:
        return Serials(serials.producer, number)
    if number > serials.last:
        return _ahead(serials, number)
    if number not in serials.missing:
        raise TakenBeforeError(number)
    if not is_output:
        raise MessageError(ErrorCode.BAD_STATE, f"event {number} came after event {serials.last}, which is newer")
    return Serials(serials.producer, serials.last, tuple(each for each in serials.missing if each != number))


def _ahead(serials: Serials, number: int) -> Serials:
    skipped = range(serials.last + 1, number)
    if len(skipped) > WINDOW:
        return Serials(serials.producer, number)
    missing = (each for each in (*serials.missing, *skipped) if each >= number - WINDOW)
    return Serials(serials.producer, number, tuple(missing))
