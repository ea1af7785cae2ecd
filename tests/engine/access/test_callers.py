"""Who calls, as the other viewers see it: nobody passes for a user by saying so."""

import trio

from fanline.engine.settings import EngineSettings
from tests.engine.access.clients import token, token_access
from tests.engine.running import running_engine
from tests.engine.task_channels import CHANNEL, Producer, call
from tests.support.raw_client import connect_raw


async def test_a_caller_without_a_user_name_passes_for_nobody_unless_it_may_do_everything() -> None:
    with trio.fail_after(20):
        async with running_engine(EngineSettings(call_timeout=0.5), access=token_access()) as engine:
            producer = Producer(engine.broker)
            producer.attach()
            await producer.say("task_started")
            everything = ["sub", "pub", "presence", "history", "call"]
            for shown in (
                token(None, channels={CHANNEL: ["sub", "call"]}),
                token("bob", channels={CHANNEL: ["sub", "call"]}),
                token(None, channels={CHANNEL: everything}),
            ):
                async with connect_raw(engine.host, engine.port) as client:
                    await client.upgrade(Authorization=f"Bearer {shown}")
                    await client.json()
                    await call(client, "greet", {"by": "anna"})
            shared, bob, admin = (asked["u"] for asked in producer.calls)
            assert shared.startswith("session ")
            assert (bob, admin) == ("bob", "anna")
