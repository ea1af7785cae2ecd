"""What several tests of the client need."""

import pytest


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that reconnects at once, and at once repeats what was refused for now."""
    monkeypatch.setattr("fanline.client.machine.connection_life.Backoff", _Soon)
    monkeypatch.setattr("fanline.client.subscriptions.client_subscriptions.Backoff", _Soon)


class _Soon:
    cap = 15.0

    def __init__(self, **_: object) -> None:
        pass

    def next_delay(self) -> float:
        return 0.001

    def reset(self) -> None:
        pass
