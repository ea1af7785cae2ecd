"""Which NATS is used: what is given, what the environment says, and how the two go together."""

from pathlib import Path
from typing import Any

import pytest

import fanline
from fanline.local import NoServer
from fanline.nats.settings import environment_options, find_options, given_options, has_server
from fanline.protocol.nats.options import NatsOptions
from fanline.protocol.serve_state import ServeState, encode_state

ALL = {
    "FANLINE_NATS_USER": "ann",
    "FANLINE_NATS_PASSWORD": "pw",
    "FANLINE_NATS_TOKEN": "t",
    "FANLINE_NATS_CREDS": "/a.creds",
    "FANLINE_NATS_NKEY": "/a.nk",
    "FANLINE_NATS_TLS_CA": "/ca.pem",
    "FANLINE_NATS_TLS_CERT": "/cert.pem",
    "FANLINE_NATS_TLS_KEY": "/key.pem",
}
TLS = {"tls_ca": "/ca.pem", "tls_cert": "/cert.pem", "tls_key": "/key.pem"}
FILES: dict[str, Any] = {"user": "ann", "password": "pw", "token": "t", "creds": "/a.creds", "nkey": "/a.nk", **TLS}


def test_the_environment_has_the_names_of_the_servers_settings() -> None:
    assert environment_options({"FANLINE_NATS": "a, tls://b:1", **ALL}) == NatsOptions(("a", "tls://b:1"), **FILES)
    assert environment_options(ALL) is None  # names no server


def test_nats_url_serves_where_fanline_nats_says_nothing_or_is_for_the_server() -> None:
    for ours in ({}, {"FANLINE_NATS": ""}, {"FANLINE_NATS": "embedded"}):
        assert environment_options({"NATS_URL": "nats://a", **ours}) == NatsOptions(("nats://a",))
    assert environment_options({"NATS_URL": "a", "FANLINE_NATS": "b"}) == NatsOptions(("b",))


def test_a_variable_that_cannot_be_used_is_ignored_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert environment_options({"FANLINE_NATS": "http://x", "NATS_URL": "a"}) == NatsOptions(("a",))
    (said,) = caplog.messages
    assert said.startswith("FANLINE_NATS is ignored: not a NATS URL: 'http://x'")
    assert environment_options({"NATS_URL": "a, nats://"}) is None


def test_urls_that_are_given_get_the_rest_from_the_environment() -> None:
    assert given_options("a,b", ALL) == NatsOptions(("a", "b"), **FILES)


def test_a_url_with_credentials_needs_none_of_the_environment() -> None:
    assert given_options("nats://token@a", ALL) == NatsOptions(("nats://token@a",), **TLS)


def test_options_are_taken_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ALL.items():
        monkeypatch.setenv(name, value)
    assert given_options(fanline.NatsOptions(("a",), token="x")) == NatsOptions(("a",), token="x")


def test_paths_are_made_absolute_since_a_job_may_change_its_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ada")
    options = given_options(NatsOptions(("a",), creds="~/a.creds", tls_ca="ca.pem"))
    assert (options.creds, options.tls_ca) == ("/home/ada/a.creds", str(tmp_path / "ca.pem"))


@pytest.mark.parametrize(
    ("nats", "error"),
    [
        ("http://somewhere", ValueError),
        (",", ValueError),
        (3, TypeError),
        (NatsOptions(()), ValueError),
        (NatsOptions("nats://a"), TypeError),  # type: ignore[arg-type]
        (NatsOptions(("a",), creds=Path("/a")), TypeError),  # type: ignore[arg-type]
        (NatsOptions(("http://x",)), ValueError),
    ],
)
def test_a_task_with_an_impossible_nats_is_refused_when_it_is_created(nats: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"(?i)nats"):
        fanline.Task(nats=nats)


def test_servers_may_be_a_list() -> None:
    assert given_options(NatsOptions(["a"])).servers == ("a",)  # type: ignore[arg-type]


def test_the_local_server_is_the_last_resort(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("NATS_URL", "FANLINE_NATS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FANLINE_STATE_DIR", str(tmp_path))
    assert not has_server()
    with pytest.raises(NoServer):
        find_options(None)
    state = ServeState(1, 1.0, "ws://a/ws", "tls://a,b", nats_creds="/a.creds", nats_nkey="/n", nats_tls_ca="/ca")
    (tmp_path / "serve-1.json").write_bytes(encode_state(state))
    assert find_options(None) == NatsOptions(("tls://a", "b"), creds="/a.creds", nkey="/n", tls_ca="/ca")
    monkeypatch.setenv("NATS_URL", "c")
    assert find_options(None) == NatsOptions(("c",))
    assert find_options(NatsOptions(("d",))) == NatsOptions(("d",))
    assert has_server()
