"""The data of task events: what producers may publish, and why the rest is refused."""

from typing import Any

import cbor2
import msgspec
import pytest
from hypothesis import given
from msgspec import Raw

from fanline.protocol.envelope import Envelope, decode_json, encode_json, from_producer
from fanline.protocol.errors import ErrorCode
from fanline.protocol.tasks.events import TaskData, TaskEvent, data_of, event_of, with_data
from tests.protocol.strategies import cbor_values, json_values, refusal

NAN, INFINITY = float("nan"), float("inf")

REFUSED: list[tuple[TaskEvent, Any, str]] = [
    (TaskEvent.PROGRESS, {"percent": 101}, "task_progress: Expected `int` <= 100 - at `$.percent`"),
    (TaskEvent.PROGRESS, {"percent": -1}, "task_progress: Expected `int` >= 0 - at `$.percent`"),
    (TaskEvent.PROGRESS, {"percent": "50"}, "task_progress: Expected `int | float | null`, got `str` - at `$.percent`"),
    (
        TaskEvent.PROGRESS,
        {"percent": True},
        "task_progress: Expected `int | float | null`, got `bool` - at `$.percent`",
    ),
    (TaskEvent.PROGRESS, {"done": -5}, "task_progress: Expected `int` >= 0 - at `$.done`"),
    (TaskEvent.PROGRESS, {"total": 1e301}, "task_progress: Expected `float` <= 1e+300 - at `$.total`"),
    (TaskEvent.PROGRESS, {"stage": "x" * 257}, "task_progress: Expected `str` of length <= 256 - at `$.stage`"),
    (TaskEvent.PROGRESS, [50], "task_progress: Expected `object`, got `array`"),
    (TaskEvent.PROGRESS, 50, "task_progress: Expected `object`, got `int`"),
    (TaskEvent.OUTPUT, {"lines": "one"}, "task_output: Expected `array | null`, got `str` - at `$.lines`"),
    (TaskEvent.OUTPUT, {"lines": [1]}, "task_output: Expected `str`, got `int` - at `$.lines[0]`"),
    (TaskEvent.OUTPUT, {"stream": "log"}, "task_output: Invalid enum value 'log' - at `$.stream`"),
    (TaskEvent.OUTPUT, {"dropped": 2**63}, "task_output: Expected `int` <= 1000000000 - at `$.dropped`"),
    (TaskEvent.STARTED, {"attempt": 0}, "task_started: Expected `int` >= 1 - at `$.attempt`"),
    (TaskEvent.STARTED, {"heartbeat": 0}, "task_started: Expected `float` > 0.0 - at `$.heartbeat`"),
    (TaskEvent.ASKED, {"text": "deploy?"}, "task_confirmation_required: `ask` is missing"),
    (
        TaskEvent.ASKED,
        {"ask": "q", "options": ["x"] * 65},
        "task_confirmation_required: Expected `array` of length <= 64",
    ),
]


@pytest.mark.parametrize(("event", "said", "message"), REFUSED)
@pytest.mark.parametrize("codec", ["json", "cbor"])
def test_bad_data_is_refused_with_the_event_and_the_key(codec: str, event: TaskEvent, said: Any, message: str) -> None:
    data = Raw(msgspec.json.encode(said)) if codec == "json" else said
    error = refusal(lambda envelope: data_of(envelope, event), Envelope("pub", data=data))
    assert error is not None
    assert error.code is ErrorCode.BAD_MESSAGE
    assert str(error).startswith(message)


@pytest.mark.parametrize("number", [NAN, INFINITY, -INFINITY])
@pytest.mark.parametrize("key", ["percent", "done", "total", "heartbeat", "timeout", "deadline"])
def test_nan_and_infinity_in_cbor_are_refused(key: str, number: float) -> None:
    envelope = from_producer(cbor2.dumps({0: 1, 7: "task_progress", 8: {key: number}}))
    error = refusal(lambda told: data_of(told, TaskEvent.PROGRESS), envelope)
    assert error is not None
    assert f"$.{key}" in str(error)


@pytest.mark.parametrize("payload", [b'{"v":1,"e":"task_paused"}', b'{"v":1,"e":"task_paused","d":null}'])
def test_no_data_and_null_are_the_same(payload: bytes) -> None:
    envelope = from_producer(payload)
    assert data_of(envelope, TaskEvent.PAUSED) == TaskData()
    envelope.data = with_data(envelope, {"state": "paused"})
    assert envelope.value == {"state": "paused"}


def test_unknown_keys_and_unknown_events_pass() -> None:
    envelope = Envelope("pub", event="task_progress", data=Raw(b'{"percent":5,"colour":"red"}'))
    assert event_of(envelope) is TaskEvent.PROGRESS
    assert data_of(envelope, TaskEvent.PROGRESS).percent == 5
    assert event_of(Envelope("pub", event="token_streamed")) is None
    assert event_of(Envelope("pub")) is None


def test_a_producer_cannot_publish_a_snapshot() -> None:
    assert event_of(Envelope("pub", event="task_snapshot")) is None


@given(json_values)
def test_any_json_is_accepted_or_refused(value: Any) -> None:
    for data in (value, Raw(msgspec.json.encode(value))):
        refusal(lambda envelope: data_of(envelope, TaskEvent.OUTPUT), Envelope("pub", data=data))


@given(cbor_values)
def test_any_cbor_under_a_known_key_is_accepted_or_refused(value: Any) -> None:
    for key in TaskData.__struct_fields__:
        refusal(lambda envelope: data_of(envelope, TaskEvent.ASKED), Envelope("pub", data={"ask": "q", key: value}))


def test_json_bytes_stay_json_bytes() -> None:
    envelope = decode_json(b'{"v":1,"t":"pub","e":"task_output","d":{"lines":["\\u00e9"],"mine":1e2}}')
    data = with_data(envelope, {"first": 7, "stream": None})
    assert isinstance(data, Raw)
    assert bytes(data) == '{"lines":["é"],"mine":100.0,"first":7,"stream":null}'.encode()
    envelope.data = data
    assert decode_json(encode_json(envelope)).value == envelope.value


def test_a_changed_cbor_map_is_a_new_one() -> None:
    said = {"percent": 5}
    assert with_data(Envelope("pub", data=said), {"state": TaskEvent.PAUSED}) == {"percent": 5, "state": "task_paused"}
    assert said == {"percent": 5}
