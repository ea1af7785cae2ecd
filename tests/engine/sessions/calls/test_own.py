"""Message types and verbs that only the application knows: it answers its clients, who notice nothing of its faults."""

import json
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trio

from fanline.engine.access.access import Access
from fanline.engine.access.application.handlers import HandlerClient
from fanline.engine.access.settings import HandlerSettings
from fanline.engine.bus.interface import Respond
from fanline.engine.bus.memory import MemoryBroker, MemoryBus
from fanline.engine.hooks.questions import MOST_OF_ONE_NAME
from fanline.engine.hooks.settings import ServedHooks
from fanline.engine.namespaces import Namespaces
from fanline.engine.settings import EngineSettings
from fanline.protocol.handlers import HandlerFailure, encode_answer, parse_handler
from fanline.protocol.hooks.questions import (
    ClientCall,
    ClientMessage,
    QuestionAnswer,
    decode_question,
    encode_question_answer,
    hooks_handler,
)
from tests.engine.access.clients import token, token_access
from tests.engine.running import RunningEngine, running_engine
from tests.engine.sessions.talk.people import person
from tests.support.raw_client import connect, connect_raw

SETUPS = ("app:setup",)
Behave = Callable[[ClientMessage | ClientCall], QuestionAnswer | HandlerFailure | None]


class Application:
    """Answers as `behave` says; not at all if that is None."""

    def __init__(self, behave: Behave) -> None:
        self.broker = MemoryBroker(Namespaces())
        self.asked: list[ClientMessage | ClientCall] = []
        self._behave = behave

    async def start(self) -> "Application":
        await MemoryBus(self.broker).answer(hooks_handler(SETUPS).subject, self._take)
        return self

    def _take(self, payload: bytes, respond: Respond) -> None:
        question = decode_question(payload)
        self.asked.append(question)
        answer = self._behave(question)
        if isinstance(answer, QuestionAnswer):
            respond(encode_question_answer(answer))
        elif answer is not None:
            respond(encode_answer(answer))

    def serve(
        self, timeout: float = 0.2, make: Callable[..., Access] = Access, settings: EngineSettings | None = None
    ) -> Any:
        access = make(handlers=HandlerClient(MemoryBus(self.broker), HandlerSettings(timeout=timeout)))
        hooks = ServedHooks((hooks_handler(SETUPS),), frozenset())
        return running_engine(settings, broker=self.broker, access=access, hooks=hooks)


def echo(question: ClientMessage | ClientCall) -> QuestionAnswer:
    return QuestionAnswer(known=question.name == "dance", result={"name": question.name, "said": question.data})


async def test_a_message_type_of_the_applications_own_gets_its_answer_in_each_dialect() -> None:  # S2-28
    app = await Application(echo).start()
    with trio.fail_after(10):
        async with app.serve() as engine, connect(engine.host, engine.port) as v1, person(engine, "Anna") as plain:
            answer = await v1.ask({"v": 1, "t": "dance", "i": "1", "c": "room:7", "d": [1]})
            assert (answer["t"], answer["i"], answer["c"]) == ("ok", "1", "room:7")
            assert answer["d"] == {"name": "dance", "said": [1]}
            answer = await plain.ask({"type": "dance", "step": 2})
            assert answer.pop("timestamp")
            assert answer == {"type": "dance_result", "name": "dance", "said": {"step": 2}}
            assert (await v1.ask({"v": 1, "t": "sing", "i": "2"}))["d"]["code"] == "unknown_type"
            assert (await plain.ask({"type": "sing"}))["message"] == "Unknown message type: sing"
    first, second = app.asked[:2]
    assert (first.connection_id, first.user, first.channel) == (v1.connection, None, "room:7")
    assert (second.connection_id, second.user, second.username) == (plain.connection, "anna", "Anna")


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"type": "bow", "deep": True}, {"type": "bow", "deep": True}),
        (7, {"type": "dance_result", "data": 7}),
        ({"timestamp": "then"}, {"type": "dance_result", "timestamp": "then"}),
    ],
)
async def test_a_plain_client_is_told_what_was_returned(result: Any, expected: dict[str, Any]) -> None:
    app = await Application(lambda _: QuestionAnswer(result=result)).start()
    with trio.fail_after(10):
        async with app.serve() as engine, person(engine) as client:
            answer = await client.ask({"type": "dance"})
            assert answer | {"timestamp": expected.get("timestamp")} == expected | {
                "timestamp": expected.get("timestamp")
            }


async def test_nothing_that_was_returned_is_no_answer_to_a_plain_client() -> None:
    app = await Application(lambda question: QuestionAnswer(result=question.data.get("wanted"))).start()
    with trio.fail_after(10):
        async with app.serve() as engine, person(engine) as client:
            await client.say({"type": "dance"})
            while not app.asked:  # questions run beside each other
                await trio.lowlevel.checkpoint()
            assert (await client.ask({"type": "bow", "wanted": 1}))["type"] == "bow_result"
            assert [question.name for question in app.asked] == ["dance", "bow"]


@pytest.mark.parametrize("kind", ["status", "input", "cancel", "auth", "sub", "talk", "own", "ok", "__init__"])
async def test_a_name_that_means_something_inside_the_server_is_the_applications_as_well(kind: str) -> None:
    app = await Application(lambda _: QuestionAnswer(result={"a": 1})).start()
    with trio.fail_after(10):
        async with app.serve() as engine, person(engine) as client:
            assert (await client.ask({"type": kind}))["type"] == f"{kind}_result"
    app = await Application(lambda _: QuestionAnswer(refusal="no")).start()
    with trio.fail_after(10):
        async with app.serve() as engine, person(engine) as client:
            answer = await client.ask({"type": kind})
            assert (answer["type"], answer["message"]) == ("error", "no")


async def test_a_call_on_a_channel_that_is_no_task_is_the_applications() -> None:
    app = await Application(echo).start()
    with trio.fail_after(10):
        async with app.serve() as engine, connect(engine.host, engine.port) as client:
            answer = await client.ask({"v": 1, "t": "call", "i": "1", "c": "doc:7", "e": "dance", "d": {"a": 1}})
            assert answer["d"] == {"name": "dance", "said": {"a": 1}}
            answer = await client.ask({"v": 1, "t": "call", "i": "2", "c": "doc:7", "e": "sing"})
            assert answer["d"]["code"] == "not_supported"
            answer = await client.ask({"v": 1, "t": "call", "i": "3", "c": "task:7", "e": "dance"})
            assert answer["d"]["code"] == "unknown_task"
    assert [type(each) for each in app.asked] == [ClientCall, ClientCall]


async def test_a_client_that_is_not_known_yet_may_not_ask_the_application_anything() -> None:
    app = await Application(echo).start()
    with trio.fail_after(10):
        async with app.serve(make=token_access) as engine, connect(engine.host, engine.port) as client:
            for command in ({"t": "dance", "i": "1"}, {"t": "call", "c": "doc:1", "e": "dance", "i": "2"}):
                assert (await client.ask({"v": 1, **command}))["d"]["code"] == "unauthenticated"
            assert app.asked == []
            await client.ask({"v": 1, "t": "auth", "i": "3", "d": {"token": token(channels={})}})
            assert (await client.ask({"v": 1, "t": "dance", "i": "4"}))["t"] == "ok"
            assert [question.user for question in app.asked] == ["anna"]


@pytest.mark.parametrize("verb", ["dance", "cancel", "approve", "status"])
async def test_a_call_of_the_applications_own_needs_the_right_call_whatever_its_verb(verb: str) -> None:
    app = await Application(lambda _: QuestionAnswer(result=1)).start()
    others = ["sub", "pub", "presence", "history", "cancel", "answer"]
    shown = token(channels={"doc:1": others, "doc:2": ["call"]})
    with trio.fail_after(10):
        async with app.serve(make=token_access) as engine, connect_raw(engine.host, engine.port) as client:
            await client.upgrade(Authorization=f"Bearer {shown}")
            await client.json()
            call = {"v": 1, "t": "call", "e": verb, "i": "1"}
            assert (await client.ask({**call, "c": "doc:1"}))["d"]["code"] == "permission_denied"
            assert app.asked == []
            assert (await client.ask({**call, "c": "doc:2"}))["d"] == 1


async def test_what_clients_ask_the_application_is_in_the_audit_log_with_its_refusal(tmp_path: Path) -> None:
    app = await Application(
        lambda asked: QuestionAnswer(refusal="no") if asked.name == "sing" else QuestionAnswer(result=1)
    ).start()
    path = tmp_path / "audit.jsonl"
    with trio.fail_after(10):
        async with (
            app.serve(settings=EngineSettings(audit_log=str(path))) as engine,
            connect(engine.host, engine.port) as client,
        ):
            for kind in ("dance", "sing"):
                await client.ask({"v": 1, "t": kind, "i": kind, "d": {"secret": "in the data"}})
            await client.ask({"v": 1, "t": "call", "c": "doc:1", "e": "bow", "i": "1"})
    called = [line for line in map(json.loads, path.read_text().splitlines()) if line["event"] == "called"]
    assert [(line["verb"], line.get("channel"), line.get("code")) for line in called] == [
        *(("dance", None, None), ("sing", None, "refused")),
        ("bow", "doc:1", None),
    ]
    assert "in the data" not in path.read_text()


async def test_without_an_answer_in_time_the_client_gets_an_error_and_is_served_meanwhile() -> None:
    app = await Application(lambda _: None).start()
    with trio.fail_after(10):
        async with app.serve() as engine, connect(engine.host, engine.port) as v1, person(engine) as plain:
            await v1.say({"v": 1, "t": "dance", "i": "1"})
            assert (await v1.ask({"v": 1, "t": "ping", "i": "p"}))["t"] == "pong"  # nobody waits for the dance
            answer = await v1.json()
            assert (answer["i"], answer["d"]["code"]) == ("1", "unavailable")
            assert (await plain.ask({"type": "dance"}))["message"] == "Message processing error"
            counted = engine.server.statistics()
            assert (counted.questions, counted.questions_failed) == (2, 2)


@pytest.mark.parametrize("slow", [1, 4, 20])
async def test_names_whose_functions_are_slow_do_not_keep_others_from_their_answers(slow: int) -> None:
    app = await Application(lambda question: QuestionAnswer(result=1) if question.name == "bow" else None).start()
    async with AsyncExitStack() as stack:
        stack.enter_context(trio.fail_after(20))
        engine = await stack.enter_async_context(app.serve(timeout=60.0))
        names = [f"dance{number % slow}" for number in range(slow * MOST_OF_ONE_NAME)]
        for first in range(0, len(names), 16):  # of one client
            client = await stack.enter_async_context(connect(engine.host, engine.port))
            for number, name in enumerate(names[first : first + 16]):
                await client.say({"v": 1, "t": name, "i": str(number)})
        while engine.server.statistics().questions < len(names):
            await trio.lowlevel.checkpoint()
        client = await stack.enter_async_context(connect(engine.host, engine.port))
        assert (await client.ask({"v": 1, "t": "bow", "i": "1"}))["d"] == 1
        if slow == 1:
            assert (await client.ask({"v": 1, "t": "dance0", "i": "2"}))["d"]["code"] == "unavailable"  # at once
            assert len(app.asked) == MOST_OF_ONE_NAME + 1


@pytest.mark.parametrize(
    ("behave", "code", "message"),
    [
        (lambda _: HandlerFailure("it raised ValueError"), "unavailable", "Message processing error"),
        (lambda _: QuestionAnswer(refusal="you may not dance"), "refused", "you may not dance"),
    ],
)
async def test_a_fault_is_not_told_and_a_refusal_is(behave: Behave, code: str, message: str) -> None:
    app = await Application(behave).start()
    with trio.fail_after(10):
        async with app.serve() as engine, connect(engine.host, engine.port) as v1, person(engine) as plain:
            answer = await v1.ask({"v": 1, "t": "dance", "i": "1"})
            assert (answer["d"]["code"], answer["d"]["message"]) == (code, message)
            assert (await plain.ask({"type": "dance"}))["message"] == message


async def test_a_client_has_no_more_than_sixteen_questions_under_way() -> None:
    app = await Application(lambda _: None).start()
    with trio.fail_after(10):
        async with app.serve() as engine, connect(engine.host, engine.port) as client:
            for number in range(17):
                await client.say({"v": 1, "t": "dance", "i": str(number)})
            answer = await client.json()
            assert (answer["i"], answer["d"]["code"]) == ("16", "limit_exceeded")


async def test_without_hooks_nobody_is_asked() -> None:
    async def look(engine: RunningEngine) -> None:
        async with connect(engine.host, engine.port) as v1, person(engine) as plain:
            assert (await v1.ask({"v": 1, "t": "dance", "i": "1"}))["d"]["code"] == "unknown_type"
            assert (await plain.ask({"type": "dance"}))["message"] == "Unknown message type: dance"
            answer = await v1.ask({"v": 1, "t": "call", "i": "2", "c": "doc:7", "e": "dance"})
            assert answer["d"]["code"] == "not_supported"

    app = await Application(echo).start()
    with trio.fail_after(10):
        async with running_engine(broker=app.broker) as engine:
            await look(engine)
    assert app.asked == []


async def test_what_no_function_knows_a_responder_is_asked() -> None:
    app = await Application(lambda question: QuestionAnswer(known=question.name == "dance", result=1)).start()
    asked = list[str]()

    def respond(payload: bytes, answer: Respond) -> None:
        name = decode_question(payload).name
        asked.append(name)
        answer(encode_question_answer(QuestionAnswer(known=name == "sing", result=2)))

    await MemoryBus(app.broker).answer("app.answer", respond)
    access = Access(handlers=HandlerClient(MemoryBus(app.broker), HandlerSettings(timeout=5)))
    hooks = ServedHooks((hooks_handler(SETUPS), parse_handler("nats:app.answer")), frozenset())
    with trio.fail_after(10):
        async with running_engine(broker=app.broker, access=access, hooks=hooks) as engine, person(engine) as client:
            assert (await client.ask({"type": "dance"}))["data"] == 1
            assert (await client.ask({"type": "sing"}))["data"] == 2
            assert (await client.ask({"type": "jump"}))["message"] == "Unknown message type: jump"
    assert asked == ["sing", "jump"]
