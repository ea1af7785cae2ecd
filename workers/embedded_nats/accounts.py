"""The accounts of the embedded nats-server: what its producers may do, and that the engine may do everything. Pure.

Producers have an account of their own, which reaches the engine's account only through what that exports. Permissions
in a common account would not hold: nats-server does not check the reply subject of a request, so a producer that may
read a message that it has written could have it delivered anywhere, for example to `$JS.API.STREAM.DELETE`
(docs/explanation/decisions/0022). A reply that comes through an export stays in the account of the request.
"""

import json
from collections.abc import Iterable
from typing import Any

from fanline.protocol.nats.names import (
    BOARD_SUBJECT,
    ENGINE_NAMESPACES,
    NOTIFY_SUBJECT,
    STREAM_NAMES,
    Bucket,
    bucket_stream,
    namespace_subject,
    stream_name,
)
from fanline.protocol.nats.subjects import Direction

ENGINE_ACCOUNT = "FANLINE"
PRODUCER_ACCOUNT = "PRODUCERS"
ENGINE_USER = "engine"
PRODUCER_USER = "producer"
_NAMES = "$JS.API.STREAM.NAMES"
"""Asked there, the producers' account says that it has no JetStream, and so that STREAM_NAMES is to be asked."""


def accounts(task_namespaces: Iterable[str], engine_password: str, producer_password: str) -> dict[str, Any]:
    """The `accounts` of a configuration."""
    gets = [
        f"$JS.API.DIRECT.GET.{stream}" for stream in (*map(stream_name, task_namespaces), bucket_stream(Bucket.TASKS))
    ]
    pub, beat, ctl = (f"fanline.{direction}.>" for direction in (Direction.PUB, Direction.BEAT, Direction.CTL))
    services = [pub, beat, BOARD_SUBJECT, NOTIFY_SUBJECT, *gets]
    engine = {
        "jetstream": "enabled",
        "users": [{"user": ENGINE_USER, "password": engine_password}],
        "exports": [{"service": subject, "accounts": [PRODUCER_ACCOUNT]} for subject in (*services, _NAMES)],
        "imports": [_service(PRODUCER_ACCOUNT, ctl)],
    }
    permissions = {
        "publish": {"allow": [*services, _NAMES, STREAM_NAMES], "deny": [*map(namespace_subject, ENGINE_NAMESPACES)]},
        "subscribe": {"allow": ["_INBOX.>", ctl]},
        "allow_responses": True,
    }
    producers = {
        "users": [{"user": PRODUCER_USER, "password": producer_password, "permissions": permissions}],
        "exports": [{"service": ctl, "accounts": [ENGINE_ACCOUNT]}],
        "imports": [
            *(_service(ENGINE_ACCOUNT, subject) for subject in services),
            {**_service(ENGINE_ACCOUNT, _NAMES), "to": STREAM_NAMES},
        ],
    }
    return {ENGINE_ACCOUNT: engine, PRODUCER_ACCOUNT: producers}


def accounts_text(task_namespaces: Iterable[str], engine_password: str, producer_password: str) -> str:
    """The same as a part of the configuration file, in which JSON is valid."""
    return f"accounts: {json.dumps(accounts(task_namespaces, engine_password, producer_password), indent=2)}"


def _service(account: str, subject: str) -> dict[str, Any]:
    return {"service": {"account": account, "subject": subject}}
