"""Settings: the order of sources, and that every mistake names its key and its source."""

from typing import Any

import msgspec
import pytest

from fanline.engine.access.settings import AccessSettings, AuthMode, HandlerSettings, TokenSettings
from fanline.engine.hooks.settings import HookSettings
from fanline.engine.namespaces import DEFAULTS, Namespace
from fanline.engine.settings import EngineSettings
from fanline.protocol.websocket.origins import is_loopback_host
from fanline.workers.configuration.loading import load_settings
from fanline.workers.configuration.monitor import MonitorSettings
from fanline.workers.configuration.notifications import NotificationSettings
from fanline.workers.configuration.settings import Settings
from fanline.workers.errors import SettingsError

HOME = {"HOME": "/home/ada"}


def refused(flags: dict[str, object], environ: dict[str, str], toml: str | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(flags, HOME | environ, ("some.toml", toml) if toml is not None else None)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_any_source_the_defaults_apply() -> None:
    settings = load_settings({}, HOME)
    assert (settings.host, settings.port, settings.workers, settings.nats) == ("127.0.0.1", 8080, 2, "embedded")
    assert settings.data_dir == "/home/ada/.local/share/fanline"
    assert settings.engine == EngineSettings()


def test_the_data_directory_follows_xdg() -> None:
    assert load_settings({}, {"XDG_DATA_HOME": "/data"}).data_dir == "/data/fanline"


def test_each_source_overrides_the_ones_before_it() -> None:
    toml = ("fanline.toml", "port = 1\nworkers = 1\ndrain_timeout = 1")
    environ = HOME | {"FANLINE_PORT": "2", "FANLINE_WORKERS": "2"}
    settings = load_settings({"port": "3", "workers": None}, environ, toml)
    assert (settings.port, settings.workers, settings.drain_timeout) == (3, 2, 1.0)


def test_engine_settings_come_from_their_table_and_from_the_environment() -> None:
    toml = ("fanline.toml", "[engine]\nheartbeat = 5\ncoalesce = 1")
    engine = load_settings({}, HOME | {"FANLINE_ENGINE_COALESCE": "20"}, toml).engine
    assert (engine.heartbeat, engine.coalesce) == (5.0, 20.0)


def test_every_setting_can_be_given_in_the_environment() -> None:
    tables: dict[str, type[msgspec.Struct]] = {
        "": Settings,
        "ENGINE_": EngineSettings,
        "TOKENS_": TokenSettings,
        "ACCESS_": AccessSettings,
        "HANDLERS_": HandlerSettings,
        "HOOKS_": HookSettings,
        "NOTIFICATIONS_": NotificationSettings,
        "MONITOR_": MonitorSettings,
    }
    in_the_file_alone = (
        *("engine", "tokens", "access", "handlers", "hooks", "webhooks", "namespaces", "routes", "roles"),
        *("notifications", "levels", "templates", "groups", "monitor", "alarms"),
    )
    environ = {
        f"FANLINE_{prefix}{field.name}".upper(): _as_text(field.default)
        for prefix, struct in tables.items()
        for field in msgspec.structs.fields(struct)
        if field.name not in in_the_file_alone or struct is HookSettings  # which has no tables
    }
    environ["FANLINE_DATA_DIR"] = "/d"
    assert load_settings({}, environ) == Settings(data_dir="/d")


def _as_text(value: object) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


def test_a_list_is_an_array_in_the_file_and_has_commas_in_the_environment() -> None:
    lines = "[engine]\nhosts = ['app.example', '[::1]']\norigins = ['https://app.example:8443']"
    toml = ("fanline.toml", f"auth = 'token'\n{lines}")
    engine = load_settings({}, HOME, toml).engine
    assert (engine.hosts, engine.origins) == (("app.example", "[::1]"), ("https://app.example:8443",))
    environ = HOME | {"FANLINE_ENGINE_HOSTS": "a.example, b", "FANLINE_ENGINE_ORIGINS": "http://a:1,app://x,"}
    engine = load_settings({}, environ, toml).engine
    assert (engine.hosts, engine.origins) == (("a.example", "b"), ("http://a:1", "app://x"))


@pytest.mark.parametrize(
    ("key", "value", "accepted"),
    [
        *(("hosts", value, "host names without ports") for value in ("a:80", "http://a", "a b", "*.a", "a/", "")),
        *(
            ("origins", v, "origins like")
            for v in ("a.example", "https://a/", "https://a/x", "null", "*", "https://*.a")
        ),
    ],
)
def test_a_list_with_anything_else_in_it_is_refused(key: str, value: str, accepted: str) -> None:
    assert accepted in refused({}, {}, f"[engine]\n{key} = [{value!r}]")
    assert accepted in refused({}, {}, f"[engine]\n{key} = {value!r}")


def test_settings_survive_the_transfer_to_a_worker() -> None:
    settings = load_settings({"port": "0"}, HOME, ("f", "[engine]\nheartbeat = 5"))
    assert msgspec.json.decode(msgspec.json.encode(settings), type=Settings) == settings


def test_paths_may_begin_with_the_home_directory() -> None:
    environ = HOME | {"FANLINE_NATS": "tls://n", "FANLINE_NATS_CREDS": "~/a.creds"}
    settings = load_settings({"data_dir": "~/d"}, environ)
    assert (settings.data_dir, settings.nats_creds) == ("/home/ada/d", "/home/ada/a.creds")
    engine = load_settings({}, HOME, ("f", "[engine]\nssl_certfile = '~/c'\nssl_keyfile = '~/k'")).engine
    assert (engine.ssl_certfile, engine.ssl_keyfile) == ("/home/ada/c", "/home/ada/k")


def test_a_documented_variable_that_is_not_a_setting_is_ignored() -> None:
    assert load_settings({}, HOME | {"FANLINE_STATE_DIR": "/run/x"}) == load_settings({}, HOME)


@pytest.mark.parametrize(
    ("flags", "environ", "toml", "words"),
    [
        ({}, {}, "prot = 1", ["prot", "some.toml", "port"]),
        ({}, {}, "[engine]\nheartbeet = 1", ["engine.heartbeet", "some.toml", "engine.heartbeat"]),
        ({}, {}, "engine = 1", ["engine", "some.toml", "table"]),
        ({}, {}, "port = ", ["some.toml", "TOML", "Invalid value"]),
        ({}, {"FANLINE_PROT": "1"}, None, ["FANLINE_PROT", "FANLINE_PORT"]),
        ({"port": "x"}, {}, None, ["port", "'x'", "--port", "whole number", "0", "65535"]),
        ({"data_dir": ""}, {}, None, ["data_dir", "--data-dir", "not empty"]),
        ({}, {"FANLINE_PORT": "70000"}, None, ["port", "'70000'", "FANLINE_PORT", "65535"]),
        ({}, {"FANLINE_WORKERS": "0"}, None, ["workers", "FANLINE_WORKERS", "at least 1"]),
        ({}, {"FANLINE_DRAIN_TIMEOUT": "nan"}, None, ["drain_timeout", "FANLINE_DRAIN_TIMEOUT", "a number"]),
        ({}, {}, "drain_timeout = nan", ["drain_timeout", "some.toml", "a number"]),
        (
            {},
            {"FANLINE_ENGINE_HEARTBEAT": "0"},
            None,
            ["engine.heartbeat", "FANLINE_ENGINE_HEARTBEAT", "over 0"],
        ),
        ({}, {}, "port = '80'", ["port", "'80'", "some.toml", "whole number"]),
        ({}, {}, "workers = true", ["workers", "some.toml", "whole number"]),
        ({"nats": "localhost"}, {}, None, ["nats", "--nats", "embedded", "nats://host:4222"]),
        ({"nats": "nats://a:x"}, {}, None, ["nats", "--nats", "nats://host:4222"]),
        ({}, {"FANLINE_NATS": "nats://a,http://b"}, None, ["nats", "FANLINE_NATS", "tls://host:4222"]),
        ({}, {"FANLINE_NATS_TOKEN": "s"}, None, ["nats_token", "FANLINE_NATS_TOKEN", "embedded"]),
        ({"nats": "tls://a"}, {"FANLINE_NATS_TLS_CERT": "c"}, None, ["nats_tls_cert", "nats_tls_key"]),
    ],
)
def test_a_mistake_names_its_key_its_source_and_what_is_accepted(
    flags: dict[str, object], environ: dict[str, str], toml: str | None, words: list[str]
) -> None:
    sentence = refused(flags, environ, toml)
    assert [word for word in words if word not in sentence] == []


@pytest.mark.parametrize(
    ("environ", "toml", "sentence"),
    [
        ({"FANLINE_PROT": "1"}, None, "unknown setting FANLINE_PROT; did you mean FANLINE_PORT?"),
        ({"FANLINE_HEARTBEAT": "1"}, None, "unknown setting FANLINE_HEARTBEAT; did you mean FANLINE_ENGINE_HEARTBEAT?"),
        ({"FANLINE_XYZZY": "1"}, None, "unknown setting FANLINE_XYZZY; all settings are in docs/reference/settings.md"),
        ({}, "xyzzy = 1", "unknown setting xyzzy in some.toml; all settings are in docs/reference/settings.md"),
        ({}, "prot = 1", "unknown setting prot in some.toml; did you mean port?"),
        ({}, "[namespace.task]", "unknown setting namespace in some.toml; did you mean namespaces?"),
        ({}, "heartbeat = 1", "unknown setting heartbeat in some.toml; heartbeat belongs in the table [engine]"),
        ({}, "[engine]\nport = 1", "unknown setting engine.port in some.toml; port belongs above all tables"),
        (
            {},
            "[engine]\nheartbeet = 1",
            "unknown setting engine.heartbeet in some.toml; did you mean engine.heartbeat?",
        ),
    ],
)
def test_the_error_about_an_unknown_setting_suggests_the_likely_one(
    environ: dict[str, str], toml: str | None, sentence: str
) -> None:
    assert refused({}, environ, toml) == sentence


@pytest.mark.parametrize("name", ["PORT", "HOST", "TOKENS_SECRET", "ENGINE_ORIGINS", "DATA_DIR"])
def test_bytes_that_are_no_text_are_refused_in_a_sentence(name: str) -> None:
    assert refused({}, {f"FANLINE_{name}": "a\udc83"}) == f"bad value for FANLINE_{name}: it is not UTF-8"


def test_a_sentence_has_one_line_whatever_it_quotes() -> None:
    for sentence in (refused({}, {}, r'"a\n\u001b[31mb" = 1'), refused({}, {"FANLINE_A\nB": "1"})):
        assert sentence.isprintable()


@pytest.mark.parametrize("toml", ["nats_password = 12345", 'nats = "nats://ada:12345@host"'])
def test_a_secret_never_appears_in_an_error(toml: str) -> None:
    assert "12345" not in refused({}, {}, toml)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org"])
def test_listening_beyond_loopback_is_refused_with_advice(host: str) -> None:
    sentence = refused({}, {"FANLINE_HOST": host})
    assert [
        word for word in ("FANLINE_HOST", host, "development mode", 'auth to "token"') if word not in sentence
    ] == []
    assert load_settings({}, HOME | {"FANLINE_HOST": host, "FANLINE_AUTH": "open"}).host == host
    assert load_settings({}, HOME | {"FANLINE_HOST": host, "FANLINE_AUTH": "token"}).auth is AuthMode.TOKEN


def test_in_development_mode_no_other_name_is_served() -> None:
    assert "development mode" in refused({}, {"FANLINE_ENGINE_HOSTS": "app.example"})


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("[access]\neveryone = ['task:*:read']", ("access.everyone", "read", "presence")),
        ("[access]\nanonymous = ['tasks']", ("access.anonymous", "tasks", "task:*:sub+call")),
        ("[access.roles]\neditor = ['Doc:*:sub']", ("access.roles.editor", "Doc:*")),
        ("[access]\nroles = 3", ("access.roles", "table")),
        ("[access.roles]\neditor = 'doc:*:sub'", ("access.roles", "table")),
        ("[tokens]\nsecret = 'short'", ("tokens.secret", "32")),
        ("[tokens]\njwks_url = 'http://id.example/keys'", ("tokens.jwks_url", "https://")),
        ("[tokens]\njwks_url = 'file:///etc/passwd'", ("tokens.jwks_url", "https://")),
        ("[tokens]\nsecrets = 'x'", ("tokens.secrets", "secret")),
        ("secret = 'x'", ("secret", "[tokens]")),
        ("auth = 'none'", ("auth", '"development" or "token" or "open"')),
        ("auth = 'token'\nnats = 'nats://a'", ("auth", "tokens.secret", "share")),
    ],
)
def test_a_mistake_about_access_is_refused_by_its_name(toml: str, words: tuple[str, ...]) -> None:
    sentence = refused({}, {}, toml)
    assert [word for word in words if word not in sentence] == []


def test_a_secret_is_not_shown() -> None:
    assert "abc" not in refused({}, {"FANLINE_TOKENS_SECRET": "abc"})
    assert "hidden" not in refused({}, {}, "[tokens]\nsecret = ['hidden']")


def test_roles_come_from_their_table() -> None:
    settings = load_settings({}, HOME, ("f", "[access.roles]\neditor = ['doc:*:sub+pub']"))
    assert settings.access.roles == {"editor": ("doc:*:sub+pub",)}


def test_rooms_ask_their_authorizer_unless_their_namespace_names_another_one() -> None:
    toml = '[namespaces.session]\nauthorizer = "app:own"\n[namespaces.project]\nhistory = 7'
    environ = HOME | {"FANLINE_ACCESS_ROOM_AUTHORIZER": "nats:app.rooms"}
    namespaces = load_settings({}, environ, ("some.toml", toml)).engine.namespaces
    assert {name: each.authorizer for name, each in namespaces.items()} == {
        "session": "app:own",
        "project": "nats:app.rooms",
    }
    assert namespaces["project"].history == 7
    assert load_settings({}, environ).engine.namespaces["project"].durable
    assert load_settings({}, HOME).engine.namespaces == {}
    assert "access.room_authorizer" in refused({}, HOME | {"FANLINE_ACCESS_ROOM_AUTHORIZER": "nowhere"})


@pytest.mark.parametrize("responder", ["app:answer", "https://app.example/answer", "nats:fanline.x", "app"])
def test_a_responder_of_hooks_is_on_nats(responder: str) -> None:
    assert "hooks.responder" in refused({}, HOME | {"FANLINE_HOOKS_RESPONDER": responder})
    assert load_settings({}, HOME | {"FANLINE_HOOKS_RESPONDER": "nats:app.answer"}).hooks.responder == "nats:app.answer"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_all_of_loopback_is_accepted(host: str) -> None:
    assert is_loopback_host(host)
    assert load_settings({"host": host}, HOME).host == host


def test_several_nats_urls_are_split() -> None:
    settings = load_settings({"nats": "nats://a:4222, tls://b"}, HOME)
    assert settings.nats_urls == ("nats://a:4222", "tls://b")
    assert not settings.embedded


def test_settings_cannot_be_changed() -> None:
    settings: Any = load_settings({}, HOME)
    with pytest.raises(AttributeError):
        settings.port = 1


def test_a_namespace_table_changes_what_it_names_and_keeps_the_other_defaults() -> None:
    toml = "[namespaces.task]\nhistory = 50\n[namespaces.news]\ndurable = true\nmax_age = 60\n"
    namespaces = load_settings({}, HOME, ("f", toml)).engine.namespaces
    assert namespaces["task"] == msgspec.structs.replace(DEFAULTS["task"], history=50)
    assert namespaces["news"] == Namespace(durable=True, max_age=60)


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("namespaces = 5", "bad value for namespaces in f: expected tables"),
        ("[namespaces]\ntask = 5", "bad value for [namespaces.task] in f: expected a table"),
        ("[namespaces.Task]\n", "[namespaces.Task] in f: the name of a namespace is a-z"),
        ("[namespaces.task]\nhistroy = 5", "unknown setting histroy in [namespaces.task] in f; did you mean history?"),
        ("[namespaces.task]\nhistory = 0", "bad value for history in [namespaces.task] in f (0): expected a whole "),
        (
            "[namespaces.task]\nslow = 'xml'",
            'bad value for slow in [namespaces.task] in f (\'xml\'): expected "resume" or "conflate" or "drop"',
        ),
        ('[namespaces.task]\nslow = "drop"', '[namespaces.task] in f: slow = "drop" is for ephemeral namespaces'),
        ("[namespaces.x]\ntasks = true", "[namespaces.x] in f: tasks = true requires durable = true"),
        ("[engine]\nssl_certfile = 'x'", "engine.ssl_certfile and engine.ssl_keyfile belong together"),
        ("[engine]\nproxy_protocol = true", "engine.proxy_protocol needs engine.trusted_proxies"),
        ("[engine]\nidle_timeout = 30", "engine.idle_timeout must be longer than engine.heartbeat"),
        (
            "[engine]\ncompression = 'maybe'",
            "bad value for engine.compression ('maybe' from f): expected true or false",
        ),
    ],
)
def test_a_bad_table_is_an_error_that_names_it(toml: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({}, HOME, ("f", toml))
    assert str(caught.value).startswith(words)
