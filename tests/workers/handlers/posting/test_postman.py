"""How events are brought to a webhook: in order, in batches, until they are taken, or given up one by one."""

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import nats.errors
import pytest

from fanline.engine.hooks.settings import Webhook
from fanline.protocol.hooks.events import ServerEvent, encode_event
from fanline.protocol.nats.commands import header_bytes
from fanline.workers.handlers.posting import postman
from fanline.workers.handlers.posting.poster import NotTakenError
from fanline.workers.handlers.posting.postman import MOST_BYTES, Postman
from fanline.workers.handlers.posting.streams import consumer_name

WEBHOOK = Webhook(url="https://a.example/", events=("x",), secret="whsec_x", give_up=1.0)


class Message:
    """One of the stream's."""

    subject = "fanline.event.x"

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.acked = False

    async def ack(self) -> None:
        self.acked = True

    async def in_progress(self) -> None:
        assert not self.acked


class Taking:
    """A webhook: takes a request as `behave` says of the ids of its events."""

    label = "https://a.example/"

    def __init__(self, behave: Callable[[list[str]], bool], *, answers: bool = True) -> None:
        self.behave = behave
        self.answers = answers
        self.requests: list[list[str]] = []

    async def post(self, events: Sequence[tuple[ServerEvent, bytes]]) -> None:
        ids = [event.id for event, _ in events]
        self.requests.append(ids)
        if not self.behave(ids):
            raise NotTakenError("it answered with status 500", answered=self.answers)


class Stream:
    """Where events are stored that were given up."""

    def __init__(self) -> None:
        self.dead: list[tuple[str, bytes, dict[str, str]]] = []

    async def publish(self, subject: str, data: bytes, headers: dict[str, str]) -> None:
        self.dead.append((subject, data, headers))


def message(event_id: str, size: int = 1) -> Message:
    return Message(encode_event("x", event_id, 0, "worker-0", {"fill": "x" * size}))


def bring(
    messages: Sequence[Message],
    behave: Callable[[list[str]], bool],
    monkeypatch: pytest.MonkeyPatch,
    *,
    answers: bool = True,
    most_bytes: int = 1 << 20,
    stream: Stream | None = None,
) -> tuple[Taking, Stream]:
    taking, stream = Taking(behave, answers=answers), stream or Stream()
    monkeypatch.setattr(postman, "_FIRST_PAUSE", 0.01)

    async def main() -> None:
        async def ensure() -> None:
            pass

        one: Any = Postman(stream, WEBHOOK, taking, ensure, lambda: most_bytes)  # type: ignore[arg-type]  # as much of them as it needs
        await one._bring(messages)

    asyncio.run(main())
    return taking, stream


def test_events_go_out_in_order_and_in_requests_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    messages = [message(str(number), MOST_BYTES // 3) for number in range(5)] + [message("huge", 2 * MOST_BYTES)]
    taking, _ = bring(messages, lambda ids: True, monkeypatch)
    assert taking.requests == [["0", "1"], ["2", "3"], ["4"], ["huge"]]
    assert all(each.acked for each in messages)


def test_nothing_is_acknowledged_before_it_is_taken_and_nothing_overtakes_what_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    messages = [message("0", MOST_BYTES), message("1")]

    def behave(ids: list[str]) -> bool:
        assert not any(each.acked for each in messages) or ids == ["1"]
        return len(taking_requests) > 3

    taking_requests = list[list[str]]()
    stream, taking = Stream(), Taking(lambda ids: taking_requests.append(ids) or behave(ids))  # type: ignore[func-returns-value]
    monkeypatch.setattr(postman, "_FIRST_PAUSE", 0.01)

    async def main() -> None:
        async def ensure() -> None:
            pass

        one: Any = Postman(stream, WEBHOOK, taking, ensure, lambda: 1 << 20)  # type: ignore[arg-type]  # as much of them as it needs
        await one._bring(messages)

    asyncio.run(main())
    assert taking.requests == [["0"], ["0"], ["0"], ["0"], ["1"]]
    assert stream.dead == []


def test_of_a_batch_that_is_given_up_only_what_is_refused_by_itself_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    messages = [message(event_id) for event_id in ("good", "poison", "better")]
    taking, stream = bring(messages, lambda ids: "poison" not in ids, monkeypatch)
    assert taking.requests[-3:] == [["good"], ["poison"], ["better"]]
    ((subject, data, headers),) = stream.dead
    assert subject == f"fanline.dead.{consumer_name(WEBHOOK)}"
    assert data == messages[1].data
    assert headers["Fanline-Reason"] == "it answered with status 500"
    assert all(each.acked for each in messages)


def test_an_event_is_acknowledged_only_once_it_is_stored_among_the_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    letter = message("1")

    class Watching(Stream):
        async def publish(self, subject: str, data: bytes, headers: dict[str, str]) -> None:
            assert not letter.acked
            await super().publish(subject, data, headers)

    class Full(Stream):
        async def publish(self, subject: str, data: bytes, headers: dict[str, str]) -> None:
            raise nats.errors.TimeoutError

    with pytest.raises(nats.errors.TimeoutError):  # the postman begins again with what is not acknowledged
        bring([letter], lambda ids: False, monkeypatch, stream=Full())
    assert not letter.acked
    _, stream = bring([letter], lambda ids: False, monkeypatch, stream=Watching())
    assert (len(stream.dead), letter.acked) == (1, True)


def test_where_nobody_answers_no_time_is_spent_on_each_event(monkeypatch: pytest.MonkeyPatch) -> None:
    messages = [message(event_id) for event_id in ("1", "2", "3")]
    taking, stream = bring(messages, lambda ids: False, monkeypatch, answers=False)
    assert set(map(tuple, taking.requests)) == {("1", "2", "3")}
    assert [data for _, data, _ in stream.dead] == [each.data for each in messages]


def test_what_is_no_event_is_dropped(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    nonsense = Message(b"}")
    taking, _ = bring([nonsense, message("1")], lambda ids: True, monkeypatch)
    assert taking.requests == [["1"]]
    assert nonsense.acked
    assert "is not an event" in caplog.text


def test_an_event_that_does_not_fit_beside_the_headers_is_kept_without_its_data(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    large = message("large", 5000)
    most = len(large.data)
    _, stream = bring([large, message("1")], lambda ids: ids == ["1"], monkeypatch, most_bytes=most)
    ((_, data, headers),) = stream.dead
    kept = json.loads(data)
    assert (kept["id"], kept["type"], kept["data"], kept["data_omitted"]) == ("large", "x", {}, most)
    assert large.acked
    most += header_bytes(headers)
    _, stream = bring([message("large", 5000)], lambda ids: False, monkeypatch, most_bytes=most)
    assert stream.dead == [(stream.dead[0][0], large.data, headers)]  # it just fits


def test_an_event_that_cannot_be_kept_at_all_is_dropped(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    strange = message("1\r\n" * 1000)
    _, stream = bring([strange], lambda ids: False, monkeypatch, most_bytes=1000)
    assert (stream.dead, strange.acked) == ([], True)
    assert "too large to be kept" in caplog.text
