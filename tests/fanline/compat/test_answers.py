"""What a program's functions answer to the server: nobody is let in by a guess."""

from concurrent.futures import Future
from typing import Any

import msgspec
import pytest

from fanline.compat.answering import hearing
from fanline.compat.answering.answers import AT_ONCE, Answers, room_of
from fanline.compat.answering.calling import ProgramCalls
from fanline.compat.answering.hearing import Hearing, queue_of, subjects_of
from fanline.hooks import HookRefusal
from fanline.protocol.handlers import AuthenticateRequest, AuthorizeRequest, encode_request
from fanline.protocol.hooks.events import EventNameError, encode_event
from fanline.protocol.hooks.questions import ClientCall, ClientMessage
from fanline.protocol.nats.parser import NatsMessage


class AtOnce(ProgramCalls):
    """Calls functions in place, or not before `finish`."""

    def __init__(self, *, holds: bool = False) -> None:
        super().__init__()
        self._holds = holds
        self.held: list[Future[Any]] = []

    def call(self, function: Any, *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        if self._holds:
            self.held.append(future)
            return future
        try:
            future.set_result(function(*arguments))
        except Exception as error:  # noqa: BLE001  # as a thread does
            future.set_exception(error)
        return future


def came(payload: bytes, subject: str = "s") -> NatsMessage:
    return NatsMessage(1, subject, "reply", payload)


def read(answer: Future[bytes]) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(answer.result(0))
    return found


def authenticated(result: Any, **request: Any) -> dict[str, Any]:
    asked = came(encode_request(AuthenticateRequest(**request)))
    return read(Answers(AtOnce()).authenticate(lambda user, name: result((user, name)), asked))


def test_who_is_believed_has_the_rights_of_a_user_of_the_old_systems() -> None:
    answer = authenticated(lambda who: who == ("anna", "Anna"), user="anna", username="Anna")
    assert (answer["allow"], answer["identity"]["user"], answer["identity"]["username"]) == (True, "anna", "Anna")
    channels = answer["identity"]["channels"]
    assert "pub" in channels["project:*"]
    assert not any(pattern.startswith(("user", "system", "*")) for pattern in channels)


def test_a_verified_token_says_who_a_client_is_and_what_it_may_do() -> None:
    claims = {"sub": "bert", "roles": ["editor"], "channels": {"doc:1": ["sub"]}}
    answer = authenticated(lambda who: who == ("bert", None), token="t", claims=claims)
    assert answer["identity"] == {"user": "bert", "roles": ["editor"], "channels": {"doc:1": ["sub"]}}


def test_a_token_that_nobody_has_verified_says_nothing() -> None:
    answer = authenticated(pytest.fail, token="anna")
    assert answer == {"allow": True, "identity": {}}


def fail(_: object) -> bool:
    raise ValueError("secret")


@pytest.mark.parametrize("result", [lambda _: None, lambda _: 1, lambda _: "yes", lambda _: object(), fail])
def test_what_is_no_clear_answer_lets_nobody_in(result: Any) -> None:
    for answer in (authenticated(result, user="anna"), authorized(result, "anna")):
        assert answer.keys() == {"error"}
        assert "secret" not in answer["error"]
    assert authenticated(lambda _: False, user="anna")["allow"] is False


def authorized(result: Any, user: str | None, channel: str = "project:p") -> dict[str, Any]:
    request = AuthorizeRequest(user=user, right="sub", channel=channel, granted=True)
    return read(Answers(AtOnce()).authorize(lambda *who: result(who), came(encode_request(request))))


def test_a_room_is_asked_for_by_the_name_that_clients_use() -> None:
    assert authorized(lambda who: who == ("anna", "my room"), "anna", "project:my~20room") == {"allow": True}
    assert authorized(pytest.fail, None) == {"allow": False}
    assert [room_of(channel) for channel in ("project:*", "session:5")] == ["*", "session:5"]


@pytest.mark.parametrize("payload", [b"", b"{}", b'{"type":"else"}'])
def test_what_is_no_request_is_answered_with_a_failure(payload: bytes) -> None:
    answers = Answers(AtOnce())
    for answer in (
        answers.authenticate(pytest.fail, came(payload)),
        answers.authorize(pytest.fail, came(payload)),
        answers.authorize(pytest.fail, came(encode_request(AuthenticateRequest(user="anna")))),
        answers.answer({}, came(payload)),
    ):
        assert read(answer).keys() == {"error"}


def answered(handler: Any, data: Any = None) -> dict[str, Any]:
    question = ClientMessage(name="move", data=data, connection_id="c1", user="anna", roles=("editor",))
    return read(Answers(AtOnce()).answer({"move": handler}, came(encode_request(question))))


def test_a_handler_gets_the_connection_and_the_message() -> None:  # S2-28
    answer = answered(lambda who, said: [who, who.user_id, who.username, who.roles, said], {"to": 1, "type": "x"})
    assert answer == {"result": ["c1", "anna", None, ["editor"], {"to": 1, "type": "move"}]}
    assert answered(lambda who, said: said, [1])["result"] == {"data": [1], "type": "move"}


def test_what_a_handler_raises_is_a_refusal_or_a_failure() -> None:
    def refuse(who: object, said: object) -> None:
        raise HookRefusal("not now")

    assert answered(refuse) == {"refusal": "not now"}
    assert answered(lambda who, said: 1 / 0) == {"error": "it raised ZeroDivisionError"}
    assert "error" in answered(lambda who, said: object())


def test_what_is_not_registered_is_not_known() -> None:
    questions = (
        ClientMessage(name="other", connection_id="c1"),
        ClientCall(name="move", connection_id="c1", channel="room:1"),
    )
    for question in questions:
        answer = Answers(AtOnce()).answer(
            {"move": lambda who, said: pytest.fail("asked")}, came(encode_request(question))
        )
        assert read(answer) == {"known": False}


def test_calls_beyond_the_bound_are_refused() -> None:
    calls = AtOnce(holds=True)
    answers, request = Answers(calls), came(encode_request(AuthenticateRequest(user="anna")))
    under_way = [answers.authenticate(lambda *_: True, request) for _ in range(AT_ONCE)]
    assert "calls are under way" in read(answers.authenticate(lambda *_: True, request))["error"]
    for held in calls.held:
        held.set_result(True)
    assert all(read(each)["allow"] for each in under_way)
    assert not answers.authenticate(lambda *_: True, request).done()


# --- events ------------------------------------------------------------------------------------------------------


def event(number: int = 0, **data: Any) -> NatsMessage:
    return came(encode_event("order_paid", f"e{number}", 0, "handlers", {"number": number, **data}))


def test_a_function_hears_events_in_order_some_at_a_time_and_no_more_than_fit(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hearing, "AT_ONCE", 2)
    monkeypatch.setattr(hearing, "MOST_WAITING", 3)
    calls, heard = AtOnce(holds=True), list[Any]()
    listener = Hearing(calls, heard.append)
    for number in range(6):
        listener.take(event(number))
    assert len(calls.held) == 2
    assert "an event is dropped" in caplog.text
    for number in range(5):
        calls.held[number].set_exception(ValueError()) if number == 1 else calls.held[number].set_result(None)
    assert len(calls.held) == 5


def test_an_event_has_its_data_and_names_that_programs_know() -> None:
    heard = list[dict[str, Any]]()
    listener = Hearing(AtOnce(), heard.append)
    listener.take(event(1, channel="session:my~20chat"))
    listener.take(came(b"nothing"))
    listener.take(came(b'{"v":1,"e":"task_started","d":{"a":1}}', "fanline.out.task.42"))
    first, second = heard
    names = {"type": "order_paid", "number": 1, "channel": "session:my chat", "session_id": "my chat"}
    assert first == names | {"timestamp": "1970-01-01T00:00:00.000Z"}
    assert {"type": "task_started", "data": {"a": 1}, "task_id": "42"}.items() <= second.items()


def test_events_of_the_agent_console_keep_their_names_and_others_are_checked() -> None:  # S2-86
    assert subjects_of("task_events:all") == ("fanline.out.task.>",)
    assert "fanline.event.subscribed" in subjects_of("websocket_channel_events")
    assert subjects_of("order_paid") == ("fanline.event.order_paid",)
    for name in ("audit", "order.paid", "*", ""):
        with pytest.raises(EventNameError):
            subjects_of(name)


def test_functions_of_one_event_hear_it_each_and_processes_share_it() -> None:
    assert queue_of("a", fail, 0) == queue_of("a", fail, 0)
    assert len({queue_of("a", fail, 0), queue_of("a", fail, 1), queue_of("b", fail, 0), queue_of("a", print, 0)}) == 4
