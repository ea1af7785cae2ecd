"""docs/reference/settings.md matches the code: every setting, its variable, what is accepted, its default."""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping

import msgspec
import pytest

from fanline.engine.access.settings import AccessSettings, HandlerSettings, TokenSettings
from fanline.engine.hooks.settings import HookSettings, Webhook
from fanline.engine.namespaces import DEFAULTS, Namespace
from fanline.engine.routes import DEFAULTS as ROUTES
from fanline.engine.routes import Route
from fanline.engine.settings import EngineSettings
from fanline.workers.configuration.loading import OTHER_VARIABLES, load_settings
from fanline.workers.configuration.monitor import DEFAULT_ALARMS, AlarmSettings, MonitorSettings
from fanline.workers.configuration.notifications import NotificationSettings
from fanline.workers.configuration.settings import Settings
from fanline.workers.configuration.wording import REFERENCE, describe_type, field_types
from tests.support.paths import ROOT

PAGE = (ROOT / REFERENCE).read_text(encoding="utf-8")
AS_READ = load_settings({}, {"HOME": "~"})
TABLES = (
    *("engine", "namespaces", "routes", "tokens", "access", "handlers", "hooks", "webhooks", "roles"),
    *("notifications", "levels", "templates", "groups"),
    *("monitor", "alarms"),
)


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table under a heading, without the head of the table."""
    _, found, section = PAGE.partition(f"\n{heading}\n")
    assert found, heading
    table = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert table, heading
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[0].splitlines()[2:]]


def expected(struct: type[msgspec.Struct], values: object, prefix: str | None) -> Iterator[list[str]]:
    """The cells that follow from the code: name, variable unless `prefix` is None, accepted, default as TOML."""
    defaults = {field.name: field.default for field in msgspec.structs.fields(struct)}  # of one without an example
    for name, annotation in field_types(struct).items():
        if name not in TABLES or struct is HookSettings:  # which has no tables
            variable = [] if prefix is None else [f"`{prefix}{name.upper()}`"]
            default = getattr(values, name, defaults.get(name, msgspec.NODEFAULT))
            shown = "" if default is msgspec.NODEFAULT else f"`{json.dumps(default)}`"
            yield [f"`{name}`", *variable, describe_type(annotation), shown]


@pytest.mark.parametrize(
    ("heading", "struct", "values", "prefix"),
    [
        ("## Server", Settings, AS_READ, "FANLINE_"),
        ("## [engine]", EngineSettings, AS_READ.engine, "FANLINE_ENGINE_"),
        ("## [tokens]", TokenSettings, AS_READ.tokens, "FANLINE_TOKENS_"),
        ("## [access]", AccessSettings, AS_READ.access, "FANLINE_ACCESS_"),
        ("## [handlers]", HandlerSettings, AS_READ.handlers, "FANLINE_HANDLERS_"),
        ("## [hooks]", HookSettings, AS_READ.hooks, "FANLINE_HOOKS_"),
        ("## [notifications]", NotificationSettings, AS_READ.notifications, "FANLINE_NOTIFICATIONS_"),
        ("## [[webhooks]]", Webhook, None, None),
        ("## [monitor]", MonitorSettings, AS_READ.monitor, "FANLINE_MONITOR_"),
        ("## [alarms.NAME]", AlarmSettings, None, None),
        ("## [namespaces.NAME]", Namespace, Namespace(), None),
        ('## [routes."PATH"]', Route, Route(), None),
    ],
)
def test_every_setting_is_on_the_page_with_its_variable_its_type_and_its_default(
    heading: str, struct: type[msgspec.Struct], values: object, prefix: str | None
) -> None:
    table = rows(heading)
    assert [row[:-2] for row in table] == list(expected(struct, values, prefix))
    assert all(row[-1] for row in table), "a setting without a meaning"


def test_times_and_sizes_have_a_unit() -> None:
    measured = [
        row
        for heading in (
            *("## Server", "## [engine]", "## [tokens]", "## [access]", "## [handlers]"),
            *("## [namespaces.NAME]", '## [routes."PATH"]'),
        )
        for row in rows(heading)
    ]
    without = [row[0] for row in measured if "number" in row[-4] and not row[-2]]
    assert without == ["`port`", "`control_port`", "`priority`"]


@pytest.mark.parametrize(
    ("heading", "plain", "defaults"),
    [
        ("### Default namespaces", Namespace(), DEFAULTS),
        ("### Default routes", Route(), ROUTES),
        ("### Default alarms", AlarmSettings(when=""), DEFAULT_ALARMS),
    ],
)
def test_the_defaults_are_on_the_page(
    heading: str, plain: msgspec.Struct, defaults: Mapping[str, msgspec.Struct]
) -> None:
    for (name, changes), (key, value) in zip(rows(heading), defaults.items(), strict=True):
        own = {field: getattr(value, field) for field in field_types(type(plain))}
        different = [f"`{key} = {json.dumps(value)}`" for key, value in own.items() if value != getattr(plain, key)]
        assert (name, changes) == (f"`{key}`", ", ".join(different))


def test_variables_that_are_not_settings_are_on_the_page() -> None:
    assert {row[0].strip("`") for row in rows("## Other variables")} == OTHER_VARIABLES


@pytest.mark.parametrize(
    "page",
    [
        "docs/reference/settings.md",
        "docs/how-to/durable-channels.md",
        "docs/how-to/serve-behind-a-proxy.md",
        "docs/reference/monitor.md",
        "docs/how-to/watch-the-server.md",
        "docs/reference/authentication.md",
        "docs/reference/handlers.md",
        "docs/how-to/authenticate-with-your-own-code.md",
        "README.md",
    ],
)
def test_the_settings_files_on_the_pages_are_accepted(page: str) -> None:
    blocks = re.findall(r"^```toml\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        assert tomllib.loads(block)
        load_settings({}, {"HOME": "~"}, (page, block))
