"""The bench is correct at tiny sizes: nothing is lost or reordered, and the receiver would notice."""

import shutil
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from fanline.loadtest.bench.__main__ import main
from fanline.loadtest.bench.fanout import measure_fanout, percentiles
from fanline.loadtest.bench.peers import PEERS
from fanline.loadtest.bench.plan import Plan
from fanline.loadtest.bench.processes import options, program, running
from tests.loadtest.bench.fake_server import numbered, serving, stamped

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler (cc) for the programs of the bench")

TINY = ("--subscribers", "20", "--seconds", "1", "--json")


def bench(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, dict[str, Any]]:
    """Side -> figures of a complete run of one round."""
    code = main([*arguments, *TINY, "--repeat", "1"])
    printed = capsys.readouterr()
    assert code == 0, printed
    report = msgspec.json.decode(printed.out)
    assert report["complete"]
    (sides,) = report["reports"][0]["rounds"]
    return dict(sides)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_fanout_brings_every_message_to_every_subscriber(workers: str, capsys: pytest.CaptureFixture[str]) -> None:
    figures = bench(capsys, "fanout", "--rate", "50", "--workers", workers)["fanline"]
    assert figures["deliveries"] == 20 * 50
    assert figures["cpu_us_per_delivery"] > 0
    assert 0 < figures["p50"] <= figures["p90"] <= figures["p99"] <= figures["max"]


def test_fanout_that_coalesces_loses_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(capsys, "fanout", "--rate", "500", "--coalesce", "20")["fanline"]["deliveries"] == 20 * 500


def test_channels_bring_every_message_to_its_own_subscriber(capsys: pytest.CaptureFixture[str]) -> None:
    figures = bench(capsys, "channels", "--rate", "100")["fanline"]
    assert (figures["channels"], figures["deliveries"]) == (20, 100)


def test_subscribers_can_share_channels(capsys: pytest.CaptureFixture[str]) -> None:
    figures = bench(capsys, "channels", "--rate", "50", "--channels", "5")["fanline"]
    assert (figures["channels"], figures["deliveries"]) == (5, 20 // 5 * 50)


def test_backends_and_silent_connections_beside_a_fan_out_lose_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    sides = bench(capsys, "api", "--rate", "20")
    assert {figures["deliveries"] for figures in sides.values()} == {20 * 20}
    assert set(sides) == {"fanline", "calls", "silence"}
    figures = ["calls_per_second", *(f"{process}_us_per_call" for process in ("worker", "control", "nats"))]
    assert None not in [sides["calls"][name] for name in figures]
    assert {sides["silence"][name] for name in figures} == {None}


@pytest.mark.parametrize("name", ["memory", "handshake", "idle"])
def test_a_bench_without_messages_connects_all_subscribers(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    figures = bench(capsys, name)["fanline"]
    assert figures["subscribers"] == 20
    assert figures["handshakes_per_second"] > 0
    assert figures["cpu_us_per_delivery"] is None


def test_handshakes_with_tokens_are_compared_with_those_without(capsys: pytest.CaptureFixture[str]) -> None:
    sides = bench(capsys, "handshake", "--token")
    assert {name: figures["subscribers"] for name, figures in sides.items()} == {"without": 20, "fanline": 20}


def test_subscribers_that_stop_reading_are_closed_and_the_others_lose_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sides = bench(capsys, "slow", "--rate", "50")
    assert sides["without"]["deliveries"] == 20 * 50
    assert sides["fanline"]["deliveries"] == 19 * 50
    assert sides["fanline"]["stalled"]["open"] == 0


@pytest.mark.parametrize("channels", [1, 20])
@pytest.mark.parametrize("peer", PEERS)
def test_a_peer_carries_the_same_traffic(peer: str, channels: int) -> None:
    if peer in ("websockets", "picows"):
        pytest.importorskip("uvloop")
        pytest.importorskip(peer)
    figures = measure_fanout(PEERS[peer], Plan(subscribers=20, channels=channels, rate=100, seconds=0.4))
    assert figures.deliveries == 20 * 40 // channels
    assert figures.complete


def test_a_comparison_runs_both_sides_in_turn(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fanout", *TINY, "--rate", "50", "--vs", "c", "--repeat", "2"]) == 0
    (report,) = msgspec.json.decode(capsys.readouterr().out)["reports"]
    assert [list(sides) for sides in report["rounds"]] == [["fanline", "c"]] * 2
    (ratio,) = report["ratios"]
    assert 0 < ratio["spread"]["low"] <= ratio["spread"]["median"] <= ratio["spread"]["high"]


def test_several_rates_make_a_report_each_with_the_ratios_to_the_peer(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["channels", *TINY, "--rate", "20", "100", "--vs", "c", "--repeat", "1"]) == 0
    reports = msgspec.json.decode(capsys.readouterr().out)["reports"]
    assert [report["plan"]["rate"] for report in reports] == [20, 100]
    assert [report["rounds"][0]["fanline"]["deliveries"] for report in reports] == [20, 100]
    for report in reports:
        assert [ratio["figure"] for ratio in report["ratios"]] == ["cpu_us_per_delivery", "handshakes_per_second"]
        assert report["rounds"][0]["fanline"]["kb_per_connection"] > 0


def test_the_table_names_every_side_and_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fanout", "--subscribers", "5", "--rate", "50", "--seconds", "0.2", "--vs", "c", "--repeat", "1"]) == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("fanline", " c\n", "CPU µs/delivery", "p99 ms", "Python", "load average"))


@pytest.mark.parametrize("name", ["idle", "slow"])
def test_a_bench_without_peers_says_so(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--vs", "c"]) == 1
    assert capsys.readouterr().err == f"bench: error: the {name} bench has no peers: leave out --vs\n"


def received(frames: bytes, expect: int, *, cut: int = 1 << 20) -> dict[str, Any]:
    """The report of the receiver once it has read these frames."""
    with serving(frames, cut=cut) as (port, served):
        wanted = {"port": port, "answer": '"t":"ok"', "subscribe": "hello", "expect": expect}
        with running([program("receiver"), *options(wanted)]) as tool:
            assert tool.read(10)["ready"] == 1
            served.result(10)
            tool.send("end")
            return dict(tool.read(10))


@pytest.mark.parametrize(
    ("sequences", "lost", "duplicated", "reordered"),
    [
        ([0, 1, 2, 3], 0, 0, 0),
        ([0, 1, 3], 1, 0, 0),
        ([1, 2, 3], 1, 0, 0),
        ([0, 1, 2], 1, 0, 0),
        ([0, 1, 1, 2, 3], 0, 1, 0),
        ([0, 2, 1, 3], 0, 0, 1),
        ([], 4, 0, 0),
    ],
)
def test_the_receiver_notices_lost_repeated_and_reordered_messages(
    sequences: Sequence[int], lost: int, duplicated: int, reordered: int
) -> None:
    result = received(numbered(sequences), expect=4)
    assert (result["lost"], result["duplicated"], result["reordered"]) == (lost, duplicated, reordered)


@pytest.mark.parametrize("cut", [1, 7, 45])
def test_the_receiver_reads_frames_however_they_are_cut(cut: int) -> None:
    result = received(numbered(range(30)), expect=30, cut=cut)
    assert (result["messages"], result["lost"]) == (30, 0)


def test_the_receiver_ends_by_itself_once_it_has_everything_and_measures_the_latency() -> None:
    result = received(stamped(0) + stamped(1), expect=2)
    assert sum(count for _, count in result["latency"]) == 2
    assert all(0 <= microseconds < 60e6 for microseconds, _ in result["latency"])


def test_percentiles_are_the_smallest_values_that_cover_their_share() -> None:
    assert percentiles({10: 50, 20: 40, 30: 9, 99: 1}, (0.5, 0.9, 0.99, 1.0)) == [10, 20, 30, 99]
    assert percentiles({7: 1}, (0.5, 1.0)) == [7, 7]


def test_the_bench_fails_when_our_server_lost_something(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fanline.loadtest.bench.fanout.CATCH_UP_SECONDS", 0.5)
    monkeypatch.setattr("fanline.loadtest.bench.plan.Plan.count", property(lambda plan: plan.expected - 1))
    assert main(["fanout", "--rate", "50", *TINY]) == 1
    assert not msgspec.json.decode(capsys.readouterr().out)["complete"]


def test_without_a_compiler_the_bench_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    assert main(["handshake", *TINY]) == 1
    assert capsys.readouterr().err.startswith("bench: error: no C compiler")
