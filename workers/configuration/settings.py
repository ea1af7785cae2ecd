"""The settings of `fanline serve`.

Every key is a field of `Settings`, or `TABLE.KEY` for a field of one of its tables: `engine.heartbeat` stands in the
table `[engine]` of the file, and is FANLINE_ENGINE_HEARTBEAT in the environment.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from fanline.engine.access.settings import AccessSettings, AuthMode, HandlerSettings, TokenSettings
from fanline.engine.hooks.settings import HookSettings, Webhook
from fanline.engine.settings import EngineSettings
from fanline.workers.configuration.monitor import AlarmSettings, MonitorSettings
from fanline.workers.configuration.notifications import NotificationSettings

EMBEDDED = "embedded"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The settings of one server. Paths may begin with ~/; others are relative to the working directory."""

    host: Annotated[str, Meta(min_length=1)] = "127.0.0.1"
    """Address to listen on; in development mode loopback only."""
    port: Annotated[int, Meta(ge=0, le=65535)] = 8080
    """TCP port; 0 takes any free one."""
    workers: Annotated[int, Meta(ge=1, le=256)] = 2
    """Worker processes; about one per core."""
    auth: AuthMode = AuthMode.DEVELOPMENT
    """Who gets in."""
    control: bool = True
    """Whether there is a control process: the management API and the metrics."""
    control_port: Annotated[int, Meta(ge=0, le=65535)] = 0
    """A port on which the control process answers by itself, besides the port of the workers; 0: none."""
    nats: Annotated[str, Meta(min_length=1)] = EMBEDDED
    """"embedded", or the URLs of a running NATS, separated by commas, without credentials."""
    nats_user: str = ""
    nats_password: str = ""
    nats_token: str = ""
    nats_creds: str = ""
    """Path of a creds file (JWT and seed)."""
    nats_nkey: str = ""
    """Path of a file with the seed of an nkey."""
    nats_tls_ca: str = ""
    """Path of the certificate authority to trust, PEM."""
    nats_tls_cert: str = ""
    """Path of the client certificate for NATS, PEM; needs nats_tls_key."""
    nats_tls_key: str = ""
    data_dir: Annotated[str, Meta(min_length=1)]
    """Where the embedded nats-server keeps its store, log and configuration."""
    store_bytes: Annotated[int, Meta(ge=0)] = 0
    """The most that the embedded nats-server stores on disk; 0: half of what its disk has room for."""
    sync_interval: Annotated[float, Meta(ge=0, le=3600)] = 1.0
    """Seconds after which the embedded nats-server has what it stores written to the disk itself, so that it survives a
    loss of power; 0: before each acknowledgement.
    """
    drain_timeout: Annotated[float, Meta(ge=0, le=3600)] = 3.0
    """Seconds that clients have to leave when the server stops; then they are cut off."""
    hang_timeout: Annotated[float, Meta(ge=2, le=86_400)] = 15.0
    """Seconds without a sign of life from a worker, the process of handlers or the control process, after which it is
    killed and replaced.
    """
    engine: EngineSettings = EngineSettings()
    tokens: TokenSettings = TokenSettings()
    access: AccessSettings = AccessSettings()
    handlers: HandlerSettings = HandlerSettings()
    hooks: HookSettings = HookSettings()
    webhooks: tuple[Webhook, ...] = ()
    notifications: NotificationSettings = NotificationSettings()
    monitor: MonitorSettings = MonitorSettings()
    alarms: dict[str, AlarmSettings] = {}
    """Name -> alarm, in addition to the default ones, or in their place."""

    @property
    def embedded(self) -> bool:
        return self.nats == EMBEDDED

    @property
    def nats_urls(self) -> tuple[str, ...]:
        return tuple(url.strip() for url in self.nats.split(","))
