"""What several tests of the client want set up."""

import pytest


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that comes back at once."""
    monkeypatch.setattr("fanline.client.client.Backoff", lambda: _Soon())


class _Soon:
    cap = 15.0

    def next_delay(self) -> float:
        return 0.001

    def reset(self) -> None:
        pass
