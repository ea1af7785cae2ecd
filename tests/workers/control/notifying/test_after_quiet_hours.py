"""What has waited for the end of quiet hours, and then fails, is tried as often as anything else."""

import msgspec
import trio

from fanline.protocol.notifications.dispatches import Dispatch, url_name
from fanline.protocol.notifications.notification import NotificationChannel, NotificationLevel
from fanline.workers.control.notifying.dispatcher import LEAST_ATTEMPTS, Dispatcher
from fanline.workers.control.notifying.records import Records
from fanline.workers.control.notifying.sender import NotDeliveredError
from tests.workers.control.notifying.test_notifier import EMAIL, Outside, Running

EVENING, MORNING = 1_000_000.0, 1_000_000.0 + 9 * 3600


class Item:
    """What is given out again when its time has come."""

    subject, number, asked = "fanline.sys.dispatch.email.x", 1, EVENING

    def __init__(self) -> None:
        self.attempt = 0
        self.due: float | None = EVENING
        """None: it is done."""
        self.now = EVENING
        self.payload = msgspec.json.encode(
            Dispatch(
                id="n-1",
                user="anna",
                channel=NotificationChannel.EMAIL,
                url=url_name(EMAIL),
                title="T",
                message="",
                level=NotificationLevel.WARNING,
                not_before=MORNING,
            )
        )

    async def done(self) -> None:
        await trio.lowlevel.checkpoint()
        self.due = None

    async def later(self, seconds: float) -> None:
        await trio.lowlevel.checkpoint()
        self.due = self.now + seconds

    def working(self) -> None:
        """It is given to nobody else."""


class Counting(Outside):
    """A service that refuses everything."""

    tried = 0

    async def send(self, dispatch: Dispatch, known: object) -> None:
        await trio.lowlevel.checkpoint()
        self.tried += 1
        raise NotDeliveredError("it is down")


async def tried_and_told(away_until: float) -> tuple[int, int]:
    """How often a dispatch was tried, and how often it is said to have been, with no control process in the night
    from its second hour on until `away_until`.
    """
    running, outside, item = Running(), Counting(), Item()
    dispatcher = Dispatcher(
        outside, Records(running.bus), running.preferences, running.dead, give_up=60, clock=lambda: item.now
    )
    while item.due is not None:
        item.now = item.due if item.due < EVENING + 7200 else max(item.due, away_until)
        item.attempt += 1
        await dispatcher.perform(item)
    (kept,) = await running.dead.list(0, 10)
    return outside.tried, kept.dead.attempts


async def test_attempts_are_those_that_were_made() -> None:
    tried, told = await tried_and_told(away_until=0)
    assert told == tried >= LEAST_ATTEMPTS


async def test_one_that_was_due_while_no_server_was_there_has_its_attempts_too() -> None:
    tried, _ = await tried_and_told(away_until=MORNING + 7200)
    assert tried >= LEAST_ATTEMPTS
