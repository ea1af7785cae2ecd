"""The benches of durable channels are correct at tiny sizes, and would notice lost or repeated messages."""

import shutil
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from fanline.loadtest.bench.__main__ import main
from fanline.loadtest.bench.durable.figures import ranks
from fanline.loadtest.bench.durable.subscriber_pool import Endpoint, SubscriberPool
from fanline.loadtest.bench.errors import BenchError
from fanline.protocol.websocket.frames import Opcode, encode_frame
from tests.loadtest.bench.fake_server import serving

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler (cc) for the publisher")


def bench(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """The figures of a complete run."""
    assert main([*arguments, "--json"]) == 0
    report = msgspec.json.decode(capsys.readouterr().out)
    assert report["complete"]
    ((figures,),) = (sides.values() for sides in report["reports"][0]["rounds"])
    return dict(figures)


@needs_compiler
def test_every_join_gets_the_whole_history_and_warm_ones_ask_jetstream_for_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    figures = bench(capsys, "join", "--subscribers", "20")
    assert figures["deliveries"] == 20 * 1000
    assert 0 < figures["p50"] <= figures["p90"] <= figures["p99"] <= figures["max"]
    assert figures["requests"] == 0


def test_joins_of_a_long_history_are_complete_and_live_messages_are_timed_meanwhile(
    capsys: pytest.CaptureFixture[str],
) -> None:
    figures = bench(capsys, "long-joins", "--subscribers", "3", "--rate", "50")
    assert (figures["deliveries"], figures["lost"], figures["duplicated"]) == (150, 0, 0)
    assert 0 < figures["p50"] <= figures["p99"] <= figures["max"]
    assert figures["joined"] > 0


@needs_compiler
def test_the_subscribers_of_a_killed_worker_come_back_and_miss_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    figures = bench(capsys, "resume", "--subscribers", "40", "--channels", "4", "--rate", "100", "--seconds", "2")
    assert figures["deliveries"] == 40 * 200 // 4
    assert 0 < figures["cut_off"] < 40, "all on one of two workers: 1 in 2^39 runs"
    assert 0 < figures["half"] <= figures["most"] <= figures["last"]
    assert figures["requests"] > 0


@needs_compiler
def test_subscribers_whose_connections_are_cut_miss_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    figures = bench(capsys, "jitter", "--subscribers", "40", "--channels", "4", "--rate", "100", "--seconds", "3")
    assert figures["deliveries"] == 40 * 300 // 4
    assert figures["cuts"] > 20
    assert 0 < figures["p50"] <= figures["p99"] <= figures["max"]


@needs_compiler
@pytest.mark.parametrize("name", ["join", "long-joins", "resume", "jitter"])
def test_the_table_has_the_figures(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--subscribers", "12", "--channels", "2", "--seconds", "1", "--rate", "50"]) == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("JetStream requests", "lost", "duplicated", "load average"))


@pytest.mark.parametrize(
    ("sequences", "missing", "repeated"),
    [([0, 1, 2, 3], 0, 0), ([0, 1, 3], 1, 0), ([1, 2, 3], 1, 0), ([0, 1, 1, 2, 3], 0, 1), ([0, 2, 1, 3], 1, 1)],
)
def test_a_subscriber_notices_missing_and_repeated_messages(
    sequences: Sequence[int], missing: int, repeated: int
) -> None:
    answer = encode_frame(Opcode.TEXT, b'{"t":"ok","o":0,"ep":"e"}')
    frames = answer + b"".join(_message(sequence) for sequence in sequences)
    with serving(frames) as (port, served), SubscriberPool(Endpoint(port, "/ws"), ["task:1"]) as pool:
        pool.connect(pool.subscribers)
        (subscriber,) = pool.subscribers
        assert pool.run(10, lambda: subscriber.next == 4)
        assert (subscriber.missing, subscriber.repeated) == (missing, repeated)
        pool.run(10, served.done)


def _message(number: int) -> bytes:
    return encode_frame(Opcode.TEXT, f'{{"t":"pub","o":{number + 1},"d":"@@{number:08d}{0:016d}"}}'.encode())


def test_ranks_are_the_smallest_values_that_cover_their_share() -> None:
    assert ranks([4, 1, 3, 2], (0.25, 0.5, 0.51, 0.95, 1.0)) == [1, 2, 3, 4, 4]
    with pytest.raises(BenchError, match="subscribers"):
        ranks([], (0.5,))
