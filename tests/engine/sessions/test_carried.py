"""Events that the engine carries without knowing them reach plain clients as their producers have said them."""

from typing import Any

import msgspec
import pytest
import trio

from tests.engine.running import RunningEngine, running_engine
from tests.engine.sessions.talk.people import people, person

OF_AGENTS = (
    *("agent_spawned", "agent_status_update", "agent_messages"),  # S3-15, S3-16, S3-17
    *("coordination_update", "file_locks_update", "plan_generated", "log"),  # S3-18, S3-19, S3-20, S3-21
    "a_type_of_tomorrow",  # S3-32
)


async def publish(engine: RunningEngine, channel: str, event: str, data: Any, **more: Any) -> None:
    await engine.bus.store(channel, msgspec.json.encode({"v": 1, "e": event, "d": data, **more}))


@pytest.mark.parametrize("event", OF_AGENTS)
async def test_an_event_of_a_project_comes_with_its_project_and_its_data_untouched(event: str) -> None:  # S3-08, S3-24
    data = {"agent_id": "a-1", "nested": {"list": [1, 2.5, None, True, "Ä"]}, "project_id": "in the data"}
    with trio.fail_after(10):
        async with running_engine() as engine:
            async with person(engine, path="/ws/board?project_id=7") as seven:
                async with person(engine, path="/ws/board?project_id=8") as eight:
                    await publish(engine, "project:7", event, data)
                    heard = await seven.hear(event)
                    assert (heard["project_id"], heard["data"]) == ("7", data)
                    assert heard["timestamp"].endswith("Z")
                    await eight.hears_nothing()


async def test_what_an_ai_does_is_told_in_its_session() -> None:  # S4-24
    data = {"status": "processing", "progress": 0.5}
    with trio.fail_after(10):
        async with running_engine() as engine, person(engine, path="/ws/chat/session/9") as client:
            await publish(engine, "session:9", "ai_processing_status", data)
            heard = await client.hear("ai_processing_status")
            assert (heard["session_id"], heard["data"]) == ("9", data)


async def test_an_event_is_for_a_user_for_a_session_or_for_everybody() -> None:  # S4-29, S4-30
    with trio.fail_after(10):
        async with running_engine() as engine, running_engine(broker=engine.broker) as other:
            async with (
                people(engine, "Anna", "Bert", path="/ws/chat") as (anna, bert),
                person(other, "Anna", path="/ws/chat/session/9") as annas_other,
                person(other, path="/ws/chat/session/9") as stranger,
            ):
                await annas_other.hear("session_joined")
                everybody = (anna, annas_other, bert, stranger)
                for channel, hearers, more in (
                    ("user:anna", everybody[:2], {}),
                    ("session:9", (annas_other, stranger), {}),
                    ("user:carl", (), {}),  # who is not connected
                    ("system:all", everybody, {"pr": 8}),
                ):
                    await publish(engine, channel, "news", {"for": channel}, **more)
                    for each in hearers:
                        assert (await each.hear("news"))["data"] == {"for": channel}
                for each in everybody:
                    await each.hears_nothing()
