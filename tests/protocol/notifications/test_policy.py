"""Where a notification goes, and when."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from fanline.protocol.notifications.notification import Notification, NotificationChannel, NotificationLevel
from fanline.protocol.notifications.policy import (
    LEVELS,
    addresses,
    chosen_channels,
    filled_url,
    misread_address,
    quiet_until,
)
from fanline.protocol.notifications.preferences import BadPreferencesError, Preferences, QuietHours, decode_preferences

WEBSOCKET, EMAIL, SMS, PUSH = NotificationChannel
WARNING, URGENT = NotificationLevel.WARNING, NotificationLevel.URGENT
NIGHT = QuietHours(begins="22:00", ends="07:00", zone="Europe/Berlin")
BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).astimezone(UTC)


def test_a_request_goes_before_preferences_and_these_before_the_settings() -> None:
    asked = Notification(user="anna", title="T")
    settings = {**LEVELS, WARNING: (WEBSOCKET, SMS)}
    own = Preferences(user="anna", channels={WARNING: (PUSH,)})

    assert chosen_channels(asked, WARNING, None, LEVELS) == (WEBSOCKET, EMAIL)
    assert chosen_channels(asked, WARNING, None, settings) == (WEBSOCKET, SMS)
    assert chosen_channels(asked, WARNING, own, settings) == (PUSH,)
    assert chosen_channels(asked, URGENT, own, settings) == (WEBSOCKET, EMAIL, SMS, PUSH)
    named = Notification(user="anna", title="T", channels=(SMS, EMAIL, SMS))
    assert chosen_channels(named, WARNING, own, settings) == (SMS, EMAIL)


def test_a_user_who_wants_nothing_of_a_level_gets_nothing_of_it() -> None:
    own = Preferences(user="anna", channels={WARNING: ()})

    assert chosen_channels(Notification(user="anna", title="T"), WARNING, own, LEVELS) == ()


def test_no_address_can_become_another_part_of_a_url() -> None:
    known = addresses("anna?to=eve@x/y", Preferences(user="anna", email="a&cc=eve@example.com"))

    url = filled_url("mailtos://me:secret@smtp.example.com/{user}?to={email}", known)

    assert url == "mailtos://me:secret@smtp.example.com/anna%3Fto%3Deve%40x%2Fy?to=a%26cc%3Deve%40example.com"


@pytest.mark.parametrize("name", [".", ".."])
def test_no_name_can_become_another_path_of_a_url(name: str) -> None:
    assert filled_url("jsons://example.com/notify/{user}", addresses(name, None)) is None
    with pytest.raises(BadPreferencesError, match="push: expected a name"):
        decode_preferences(b'{"user":"anna","push":"%s"}' % name.encode())


@pytest.mark.parametrize(
    "name", ["Anna Smith", "a,eve", "a;eve", "a[eve", "x:eve", "@eve", "o'brien", 'o"eve', "a\u00a0eve"]
)
def test_no_name_is_taken_for_several_addresses_or_for_another_one(name: str) -> None:
    known = {"user": name, "email": f"{name}@example.com"}

    assert misread_address("mailto://localhost?to={user}@example.com", known) == "user"
    assert misread_address("mailto://localhost?to={email}", known) == "email"
    assert misread_address("ntfy://localhost/{user}", known) == "user"
    assert misread_address("JSONS://localhost/{user}?to={email}", known) is None
    assert misread_address("mailto://localhost?to={email}", known | {"email": "anna+x@example.com"}) is None


def test_a_url_that_needs_an_address_which_is_not_known_is_not_used() -> None:
    assert filled_url("twilio://x/{phone}", addresses("anna", None)) is None
    assert filled_url("slack://x/y/z", addresses("anna", None)) == "slack://x/y/z"


@pytest.mark.parametrize(
    ("now", "until"),
    [
        ("2026-01-10T21:59:59", None),
        ("2026-01-10T22:00:00", "2026-01-11T07:00:00"),
        ("2026-01-11T06:59:59", "2026-01-11T07:00:00"),
        ("2026-01-11T07:00:00", None),
        ("2026-03-28T23:00:00", "2026-03-29T07:00:00"),  # an hour shorter: summer time begins
        ("2026-10-25T01:00:00", "2026-10-25T07:00:00"),  # an hour longer
    ],
)
def test_quiet_hours_are_those_of_the_clock_on_the_wall(now: str, until: str | None) -> None:
    assert quiet_until(at(now), NIGHT, BERLIN) == (None if until is None else at(until))


def test_quiet_hours_may_lie_within_a_day_or_be_none() -> None:
    noon = QuietHours(begins="12:00", ends="14:00")
    never = QuietHours(begins="00:00", ends="00:00")
    midday = datetime(2026, 1, 10, 13, tzinfo=UTC)

    assert quiet_until(midday, noon, UTC) == midday + timedelta(hours=1)
    assert quiet_until(midday, never, UTC) is None
    assert quiet_until(midday, None, UTC) is None


@pytest.mark.parametrize(
    "wrong",
    [
        b'{"user":"anna","email":"no address"}',
        b'{"user":"anna","email":"a@b?cc=eve"}',
        b'{"user":"anna","phone":"0151 123"}',
        b'{"user":"anna","push":"a/b"}',
        b'{"user":"anna","channels":{"loud":[]}}',
        b'{"user":"anna","quiet_hours":{"begins":"25:00","ends":"07:00"}}',
        b'{"user":"anna","colour":"red"}',
        b"no JSON",
    ],
)
def test_what_is_no_preference_is_refused(wrong: bytes) -> None:
    with pytest.raises(BadPreferencesError):
        decode_preferences(wrong)


def test_the_error_says_what_is_expected() -> None:
    with pytest.raises(BadPreferencesError, match=r"^email: expected an address like anna@example\.com$"):
        decode_preferences(b'{"user":"anna","email":"no address"}')
    with pytest.raises(BadPreferencesError, match=r"^quiet_hours\.begins: expected a time like 22:00$"):
        decode_preferences(b'{"user":"anna","quiet_hours":{"begins":"25:00","ends":"07:00"}}')
