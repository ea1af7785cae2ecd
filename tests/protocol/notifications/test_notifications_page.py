"""docs/reference/notifications.md says what the code says."""

import msgspec

from fanline.protocol.notifications.notification import Notification
from fanline.protocol.notifications.policy import LEVELS
from fanline.protocol.notifications.preferences import Preferences
from fanline.protocol.notifications.templates import TEMPLATES
from tests.protocol.documented.test_reference_pages import table
from tests.support.paths import REFERENCE

PAGE = (REFERENCE / "notifications.md").read_text(encoding="utf-8")


def test_the_page_has_every_field_of_a_request() -> None:
    fields = [field.name for field in msgspec.structs.fields(Notification)]
    asked = PAGE.partition("## Preferences\n")[0]
    assert [row[0].strip("`") for row in table(asked, "| field | form | meaning |")] == fields


def test_the_page_has_every_preference() -> None:
    section = PAGE.partition("## Preferences\n")[2]
    fields = [field.name for field in msgspec.structs.fields(Preferences) if field.name != "user"]
    assert [row[0].strip("`") for row in table(section, "| field | form | meaning |")] == fields


def test_the_page_has_the_channels_of_every_level() -> None:  # S4-56
    shown = {row[0].strip("`"): row[1].replace("`", "").split(", ") for row in table(PAGE, "| level | channels |")}
    assert shown == {level: list(channels) for level, channels in LEVELS.items()}


def test_the_page_has_every_template() -> None:
    shown = {row[0].strip("`"): row[1:] for row in table(PAGE, "| template | level |")}
    known = {name: [f"`{each.level}`", each.title, each.message] for name, each in TEMPLATES.items()}
    assert {name: [cell.strip("`") for cell in row] for name, row in shown.items()} == {
        name: [cell.strip("`") for cell in row] for name, row in known.items()
    }
