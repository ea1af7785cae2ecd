"""Requests as large as they may be, and larger: they reach their users, or are kept with the reason."""

from fanline.engine.bus.errors import TooLargeError
from fanline.engine.bus.memory.work import MemoryWork
from fanline.protocol.nats.names import NOTIFY_SUBJECT
from fanline.protocol.notifications.notification import MAX_BYTES, Notification, encode_notification
from fanline.protocol.notifications.templates import NotificationTemplate
from tests.workers.control.notifying.test_notifier import Running


async def test_a_group_gets_a_request_that_is_as_large_as_it_may_be() -> None:
    running = Running(groups={"ops": ("anna", "ben")})
    size = len(encode_notification(Notification(user="@ops", title="T", data={"p": ""})))
    await running.ask(user="@ops", data={"p": "p" * (MAX_BYTES - size)})
    await running.decide()

    assert (len(await running.inbox("anna")), len(await running.inbox("ben"))) == (1, 1)
    assert await running.reasons() == []


async def test_what_is_too_large_for_the_store_is_kept_with_the_reason_and_not_tried_for_ever() -> None:
    running = Running(templates={"long": NotificationTemplate(title="T", message="{x}" * 20)})
    await running.ask(user="anna", template="long", title="", parameters={"x": "x" * 60_000})
    await running.decide()

    (kept,) = await running.dead.list(0, 10)
    assert kept.dead.reason.startswith("what it makes is too large: ")
    assert kept.dead.request["template"] == "long"


async def test_a_request_that_fits_no_more_beside_its_reason_is_kept_in_part() -> None:
    class Full(MemoryWork):
        async def put(self, subject: str, payload: bytes, store_id: str | None = None, *, once: bool = False) -> bool:
            if subject != NOTIFY_SUBJECT and len(payload) > MAX_BYTES:
                raise TooLargeError("no room")
            return await super().put(subject, payload, store_id, once=once)

    running = Running(work=Full())
    await running.work.put(NOTIFY_SUBJECT, b'{"user":"anna","pad":"%s"}' % (b"x" * MAX_BYTES))
    await running.decide()

    (kept,) = await running.dead.list(0, 10)
    assert (kept.dead.user, kept.dead.request[:15]) == ("anna", 'b\'{"user":"anna')
