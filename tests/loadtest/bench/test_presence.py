"""The bench of presence, in small."""

import msgspec
import pytest

from fanline.loadtest.bench.__main__ import main


@pytest.mark.process
def test_every_count_is_right_in_the_end_and_the_killed_workers_users_are_gone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["presence", "--subscribers", "150", "--rate", "100", "--seconds", "1", "--json"]) == 0
    report = msgspec.json.decode(capsys.readouterr().out)
    [figures] = [sides["fanline"] for sides in report["reports"][0]["rounds"]]
    assert (figures["users"], figures["fault_count"]) == (150, 0)
    assert 0 < figures["left"] < 150
    assert figures["right"] < 20


def test_too_few_users_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presence", "--subscribers", "100"]) == 1
    assert "take more --subscribers" in capsys.readouterr().err
