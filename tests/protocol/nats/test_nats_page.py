"""docs/reference/nats.md names what the code names."""

import pytest

from fanline.engine.bus.nats.jetstream import bucket_config, position_of, stream_config
from fanline.engine.bus.stored import StreamPosition
from fanline.engine.namespaces import Namespace
from fanline.protocol.nats.names import (
    MESSAGE_ID,
    Bucket,
    bucket_stream,
    bucket_subject,
    channel_key,
    channel_of_key,
    client_store_id,
    engine_store_id,
    key_of,
    namespace_subject,
    producer_store_id,
    stream_name,
)
from fanline.protocol.nats.subjects import Direction, from_subject, to_subject
from tests.protocol.documented.test_reference_pages import table
from tests.support.paths import REFERENCE

PAGE = (REFERENCE / "nats.md").read_text(encoding="utf-8")


def test_the_page_has_the_subject_of_every_direction() -> None:
    rows = table(PAGE, "| direction |")
    assert [row[:3] for row in rows] == [
        [direction, to_subject("task:42", direction), namespace_subject("task", direction)] for direction in Direction
    ]
    assert all(from_subject(row[1]) == "task:42" for row in rows)


def test_the_page_has_the_streams_as_the_engine_makes_them() -> None:
    for namespace, *named in table(PAGE, "| namespace | stream |"):
        config = stream_config(namespace, Namespace())
        assert named == [
            stream_name(namespace),
            namespace_subject(namespace),
            namespace_subject(namespace, Direction.OUT),
        ]
        assert [[config["name"]], config["subjects"]] == [named[:1], named[1:2]]
        assert config["republish"] == {"src": named[1], "dest": named[2]}


def test_the_page_has_every_bucket() -> None:
    assert [row[0] for row in table(PAGE, "| bucket |")] == list(Bucket)


@pytest.mark.parametrize("bucket", Bucket)
def test_a_bucket_is_a_stream_of_its_subjects(bucket: Bucket) -> None:
    config = bucket_config(bucket, 0, 1, -1)
    assert config["name"] == bucket_stream(bucket)
    assert config["subjects"] == [bucket_subject(bucket, ">")]


def test_the_page_says_how_a_key_becomes_a_subject() -> None:
    key, text = channel_key("task:42"), " ".join(PAGE.split())
    assert f"Bucket `{Bucket.TASKS}` is the stream `{bucket_stream(Bucket.TASKS)}`" in text
    assert f"its key `{key}` the subject `{bucket_subject(Bucket.TASKS, key)}`" in text
    assert f"`user:ann` is the key `{channel_key('user:ann')}`" in text


@pytest.mark.parametrize("channel", ["task:42", "user:ann", "task:build.linux", "room:a:b"])
def test_keys_and_subjects_of_a_bucket_are_undone(channel: str) -> None:
    key = channel_key(channel)
    assert channel_of_key(key) == channel
    assert key_of(Bucket.TASKS, bucket_subject(Bucket.TASKS, key)) == key


def block(headers: dict[str, str]) -> bytes:
    """Headers as they come with a message."""
    return b"NATS/1.0\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode() + b"\r\n"


def test_the_page_has_the_header_of_publishers_and_those_that_a_worker_reads() -> None:
    rows = {row[0]: row[1] for row in table(PAGE, "| header |")}
    assert [header for header, by in rows.items() if by == "the publisher"] == [MESSAGE_ID]
    read = {header: "7" for header, by in rows.items() if by.startswith("JetStream")}
    assert position_of(block(read)) == StreamPosition(7, 7, "7")
    for needed in read.keys() - {"Nats-Last-Sequence"}:
        with pytest.raises(ValueError, match=r"time stamp|invalid literal"):
            position_of(block({header: value for header, value in read.items() if header != needed}))


def store_id(publisher: str, channel: str, name: str) -> str:
    """By a row's first three columns."""
    if publisher == "a producer":
        return producer_store_id(channel, name)
    if publisher == "the engine":
        return engine_store_id(channel, name)
    return client_store_id(publisher.partition("user `")[2].rstrip("`") or None, channel, name)


def test_the_page_has_the_form_of_every_store_id() -> None:
    rows = table(PAGE, "| publisher |")
    assert {header[:2] for *_, header in rows} == {"c/", "e/", "/t"}
    for *columns, header in rows:
        assert header == store_id(*columns)


TEXTS = ["a", "a/b", "c/a", "/", "a%2Fb", "", "e", "\N{GRINNING FACE}", "a b", "a\r\nb"]
CHANNELS = ["task:1", "task:1/a", "task:a/b:c", "room:c//"]


def test_no_two_messages_have_the_same_store_id_whatever_is_in_their_parts() -> None:
    made = [client_store_id(user, channel, text) for user in TEXTS for channel in CHANNELS for text in TEXTS]
    made += [
        make(channel, text) for make in (engine_store_id, producer_store_id) for channel in CHANNELS for text in TEXTS
    ]
    assert len(made) == len(set(made))
    assert all(text.isascii() and text.isprintable() and " " not in text for text in made)


def test_no_client_and_no_producer_has_a_store_id_of_the_engine() -> None:
    for text in TEXTS:
        assert engine_store_id("task:1", text).startswith("e/")
        assert client_store_id(text, "task:1", text).startswith("c/")
        assert producer_store_id("task:1", text).startswith("/")
