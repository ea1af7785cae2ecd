"""Every limit has a setting, an answer and a counter, as the page says, and a log line now and then."""

import json
import logging

import pytest

from fanline.engine.access.settings import AccessSettings
from fanline.engine.counters import Counters
from fanline.engine.limits import Limit, LimitHits
from fanline.engine.settings import EngineSettings
from fanline.protocol.errors import CloseReason, ErrorCode
from fanline.protocol.websocket.handshake import _STATUS as HTTP_STATUSES
from tests.protocol.documented.test_reference_pages import table
from tests.support.paths import REFERENCE

PAGE = (REFERENCE / "limits.md").read_text(encoding="utf-8")
SETTINGS = {"engine": EngineSettings(), "access": AccessSettings()}
OUTCOMES = {
    *(str(status) for status in HTTP_STATUSES),
    *(str(reason.code) for reason in CloseReason),
    *ErrorCode,
    "waits",
    "read slowly",
    "closed",
}


def default_of(setting: str) -> str:
    section, _, name = setting.partition(".")
    return json.dumps(getattr(SETTINGS[section], name))


def test_the_page_has_every_limit_with_its_settings_defaults_answer_and_counter() -> None:
    expected = [
        [
            limit.name,
            ", ".join(limit.settings) or "-",
            ", ".join(default_of(name) for name in limit.settings) or "-",
            limit.outcome,
            limit.counter,
        ]
        for limit in Limit
    ]
    assert [[cell.replace("`", "") for cell in row] for row in table(PAGE, "| limit | settings |")] == expected


@pytest.mark.parametrize("limit", Limit)
def test_every_limit_has_an_answer_that_exists_and_is_counted(limit: Limit) -> None:
    assert set(limit.outcome.split("; ")) <= OUTCOMES
    counters = Counters()
    LimitHits(counters).hit(limit)
    assert getattr(counters, limit.counter) == 1


def test_each_limit_is_logged_once_in_a_while_with_what_came_meanwhile(caplog: pytest.LogCaptureFixture) -> None:
    now = 100.0
    hits = LimitHits(Counters(), lambda: now)
    for _ in range(50):
        hits.hit(Limit.SUBSCRIPTIONS)
    hits.hit(Limit.ADDRESSES, "192.0.2.1 may not connect")
    now += 10.0
    hits.hit(Limit.SUBSCRIPTIONS)
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, "engine.max_subscriptions: limit_exceeded (1 since the last such line)"),
        (
            logging.WARNING,
            "engine.allow_addresses or engine.deny_addresses: 192.0.2.1 may not connect (1 since the last such line)",
        ),
        (logging.WARNING, "engine.max_subscriptions: limit_exceeded (50 since the last such line)"),
    ]
