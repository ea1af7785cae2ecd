"""The server says what happens to its clients, to whoever wants to hear it, and to nobody else."""

import pytest
import trio

from fanline.engine.bus.memory import MemoryBroker
from fanline.engine.hooks.settings import HookSettings, ServedHooks, Webhook, served_hooks
from fanline.engine.namespaces import Namespaces
from fanline.engine.sessions import saying
from fanline.protocol.hooks.events import EventName
from tests.engine.access.clients import token, token_access
from tests.engine.hooks.listening import ALL, Listening
from tests.engine.running import running_engine
from tests.engine.sessions.talk.people import people, person
from tests.support.raw_client import connect, connect_raw


async def test_a_clients_way_from_its_coming_to_its_going_is_said_in_order() -> None:
    broker = MemoryBroker(Namespaces())
    heard = await Listening(broker).start()
    with trio.fail_after(10):
        async with running_engine(broker=broker, hooks=ALL) as engine:
            async with connect(engine.host, engine.port) as client:
                me = client.connection
                await client.ask({"v": 1, "t": "sub", "i": "1", "c": "doc:7"})
                sent = await client.ask({"v": 1, "t": "pub", "i": "2", "c": "user:anna", "e": "hello", "d": {"a": 1}})
                await client.ask({"v": 1, "t": "unsub", "i": "3", "c": "doc:7"})
                assert heard.events[0].data == {"connection_id": me, "dialect": "json"}
                assert heard.events[2].data["data"] == {"a": 1}
                assert (heard.events[3].data["message_id"], heard.events[3].data["offset"]) == (
                    sent["d"]["id"],
                    sent["o"],
                )
                assert len({event.id for event in heard.events}) == len(heard.events)
                assert heard.take("connection_id", "channel", "event") == [
                    ("connection_opened", me, None, None),
                    ("subscribed", me, "doc:7", None),
                    ("message_received", me, "user:anna", "hello"),
                    ("message_sent", me, "user:anna", "hello"),
                    ("unsubscribed", me, "doc:7", None),
                ]
            while not heard.events:
                await trio.lowlevel.checkpoint()
            assert heard.take("connection_id", "code") == [("connection_closed", me, 1006)]


async def test_a_user_is_said_to_have_connected_as_soon_as_it_is_known_who_it_is() -> None:  # S4-69
    broker = MemoryBroker(Namespaces())
    heard = await Listening(broker).start()
    with trio.fail_after(10):
        async with running_engine(broker=broker, hooks=ALL, access=token_access()) as engine:
            async with connect_raw(engine.host, engine.port) as client:
                await client.upgrade()
                await client.json()
                assert heard.take("user_id") == [("connection_opened", None)]
                await client.ask({"v": 1, "t": "auth", "i": "1", "d": {"token": token(sub="anna")}})
                assert heard.take("user_id") == [("user_connected", "anna")]
                await client.ask({"v": 1, "t": "auth", "i": "2", "d": {"token": token(sub="anna")}})
                assert heard.take() == []  # the same user goes on
            while len(heard.events) < 2:
                await trio.lowlevel.checkpoint()
            assert heard.take("user_id") == [("user_disconnected", "anna"), ("connection_closed", "anna")]


async def test_a_plain_client_is_named_and_its_rooms_and_its_typing_are_said() -> None:  # S4-69, S4-70, S4-71, S4-72
    broker = MemoryBroker(Namespaces())
    heard = await Listening(broker).start()
    with trio.fail_after(10):
        async with running_engine(broker=broker, hooks=ALL) as engine:
            async with person(engine, "Anna") as anna:
                await anna.hears_nothing()
                assert heard.take("user_id", "username") == [
                    ("connection_opened", None, None),
                    ("user_connected", "anna", "Anna"),
                    ("subscribed", "anna", "Anna"),
                ]
                await anna.ask({"type": "join_room", "room_id": "7"})
                await anna.say({"type": "typing", "room_id": "7", "is_typing": False})
                await anna.ask({"type": "new_message", "room_id": "7", "data": {"text": "hello"}})
                await anna.ask({"type": "leave_room", "room_id": "7"})
            while ("connection_closed",) not in [(event.type,) for event in heard.events]:
                await trio.lowlevel.checkpoint()
            said = heard.take("channel", "user_id")
            assert said[:2] == [("subscribed", "project:7", "anna"), ("session_joined", "project:7", "anna")]
            assert [each[0] for each in said[2:]] == [
                *("typing_status_changed", "message_received", "message_sent", "unsubscribed", "session_left"),
                *("user_disconnected", "connection_closed"),
            ]


async def test_what_clients_say_of_the_items_of_a_board_is_said_as_well() -> None:  # S3-23
    broker = MemoryBroker(Namespaces())
    heard = await Listening(broker).start()
    with trio.fail_after(10):
        async with running_engine(broker=broker, hooks=ALL) as engine, people(engine, "Anna") as (anna,):
            await anna.hears_nothing()
            heard.take()
            await anna.say({"type": "task_created", "task_id": "1", "project_id": "7", "status": "todo"})
            await anna.hears_nothing()
            assert heard.take("event", "user_id") == [("message_received", "task_created", "anna")]


async def test_what_nobody_wants_is_not_said() -> None:
    broker = MemoryBroker(Namespaces())
    heard = await Listening(broker).start()
    wanted = ServedHooks((), frozenset((EventName.SUBSCRIBED,)))
    with trio.fail_after(10):
        async with running_engine(broker=broker, hooks=wanted) as engine:
            async with connect(engine.host, engine.port) as client:
                await client.ask({"v": 1, "t": "sub", "i": "1", "c": "doc:7"})
                await client.ask({"v": 1, "t": "pub", "i": "2", "c": "doc:7"})
            assert heard.take("channel") == [("subscribed", "doc:7")]
        async with running_engine(broker=broker) as engine, connect(engine.host, engine.port) as client:
            await client.ask({"v": 1, "t": "sub", "i": "1", "c": "doc:7"})
            assert heard.take() == []


async def test_what_a_client_types_is_not_looked_at_if_nobody_wants_to_know(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = list[object]()
    monkeypatch.setattr(saying, "_is_typing", looked.append)
    with trio.fail_after(10):
        async with running_engine() as engine, connect(engine.host, engine.port) as client:
            typing = {"v": 1, "t": "pub", "i": "1", "c": "doc:7", "e": "typing", "d": {"is_typing": True}}
            assert (await client.ask(typing))["t"] == "ok"
    assert looked == []


def test_the_settings_say_who_wants_which_events() -> None:
    webhook = Webhook(url="https://app.example/", events=("task_ended", "order_paid"), secret="whsec_x")
    assert served_hooks(HookSettings(), ()).events == frozenset()
    assert served_hooks(HookSettings(events=("subscribed", "item_sold")), [webhook]).events == {
        *("subscribed", "task_ended")
    }
    assert served_hooks(HookSettings(handlers=("app:setup",)), ()).events == frozenset(EventName)


def test_functions_are_asked_before_a_responder() -> None:
    settings = HookSettings(handlers=("app:setup",), responder="nats:app.answer")
    first, second = served_hooks(settings, ()).answerers
    assert (first.text, second.subject) == ("hooks app:setup", "app.answer")
    assert served_hooks(HookSettings(), ()).answerers == ()
