"""What a notification says that is made from a template."""

import pytest

from fanline.protocol.notifications.notification import BadNotificationError, Notification, NotificationLevel
from fanline.protocol.notifications.templates import (
    TEMPLATES,
    NotificationTemplate,
    placeholders,
    render,
)

NOTICES = (
    ("device_online", "device_offline", "device_risk_control", "device_banned"),  # S4-57
    ("device_reconnect",),  # S4-58
    ("risk_event",),  # S4-59
    ("ai_processing",),  # S4-60
    ("message_status",),  # S4-61
    ("human_takeover",),  # S4-62
    ("quota_80", "quota_95", "quota_100"),  # S4-63
    ("cost_over_budget",),  # S4-64
    ("usage_report",),  # S4-65
    ("maintenance",),  # S4-66
    ("new_feature",),  # S4-67
    ("security_alarm",),  # S4-68
)
"""The notices of the sales assistant."""


@pytest.mark.parametrize("names", NOTICES)
def test_each_notice_of_the_sales_assistant_has_a_template(names: tuple[str, ...]) -> None:
    for name in names:
        given = {parameter: f"<{parameter}>" for parameter in placeholders(TEMPLATES[name])}
        rendered = render(Notification(user="anna", template=name, parameters=dict(given)), TEMPLATES)

        assert rendered.title
        assert rendered.level is TEMPLATES[name].level
        assert all(value in rendered.title + rendered.message for value in given.values())


def test_what_is_given_goes_before_the_template() -> None:
    asked = Notification(
        user="anna",
        template="device_offline",
        title="Own",
        level=NotificationLevel.URGENT,
        parameters={"device": "Phone 2"},
    )

    title, message, level, _ = render(asked, TEMPLATES)

    assert (title, level) == ("Own", NotificationLevel.URGENT)
    assert message == "Your device Phone 2 is no longer connected."


def test_a_missing_parameter_is_named() -> None:
    with pytest.raises(BadNotificationError, match="'device_banned' needs the parameters device, reason"):
        render(Notification(user="anna", template="device_banned"), TEMPLATES)


def test_an_unknown_template_is_named() -> None:
    with pytest.raises(BadNotificationError, match="no template 'device_of'"):
        render(Notification(user="anna", template="device_of"), TEMPLATES)


def test_a_placeholder_shows_nothing_but_the_parameter_itself() -> None:
    templates = {"own": NotificationTemplate(title="{a} {a.__class__} {0} {{a}}")}

    assert render(Notification(user="anna", template="own", parameters={"a": "{b}"}), templates).title == (
        "{b} {a.__class__} {0} {{b}}"
    )


def test_a_template_makes_no_url_that_runs_a_script() -> None:
    templates = {"own": NotificationTemplate(title="T", action_url="{to}")}

    with pytest.raises(BadNotificationError, match="makes no URL"):
        render(Notification(user="anna", template="own", parameters={"to": "javascript:alert(1)"}), templates)
    whole = Notification(user="anna", template="own", parameters={"to": "/orders/1"})
    assert render(whole, templates).action_url == "/orders/1"
