"""`python -m fanline.workers`: what `fanline serve` runs."""

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import trio
import typer

from fanline.protocol.serve_state import state_directory
from fanline.protocol.text import harmless
from fanline.workers.configuration.loading import CONFIG_NAME, load_settings
from fanline.workers.errors import ServeError, SettingsError, first_leaf
from fanline.workers.file_limit import raise_file_limit
from fanline.workers.logs import configure_logging
from fanline.workers.process_name import name_process
from fanline.workers.supervision.supervisor import supervise

PROGRAM = "fanline serve"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def serve(
    host: Annotated[
        str | None, typer.Option(metavar="HOST", help="Address to listen on.  [default: 127.0.0.1]")
    ] = None,
    port: Annotated[str | None, typer.Option(metavar="PORT", help="0 takes a free one.  [default: 8080]")] = None,
    workers: Annotated[str | None, typer.Option(metavar="N", help="Worker processes.  [default: 2]")] = None,
    nats: Annotated[
        str | None,
        typer.Option(metavar="embedded|URL", help="A nats-server of its own, or yours.  [default: embedded]"),
    ] = None,
    auth: Annotated[
        str | None,
        typer.Option(metavar="development|token|open", help="Who gets in.  [default: development]"),
    ] = None,
    data_dir: Annotated[
        str | None, typer.Option(metavar="DIR", help="Store and logs.  [default: ~/.local/share/fanline]")
    ] = None,
    config: Annotated[
        str | None, typer.Option(metavar="FILE", help=f"Settings file.  [default: ./{CONFIG_NAME} if there is one]")
    ] = None,
) -> None:
    """Receive messages from NATS and fan them out to WebSocket clients, until Ctrl-C.

    Prints one line, `fanline ready: ...`, when clients can connect, to ws://HOST:PORT/ws. Producers publish with
    `fanline pub` or any NATS client to `fanline.pub.NAMESPACE.ID`.

    Settings are merged: defaults < fanline.toml < FANLINE_* environment < the options below. Each setting has one
    name everywhere: `drain_timeout = 10` in the file is FANLINE_DRAIN_TIMEOUT=10 in the environment, and `heartbeat` in
    the file's table `[engine]` is FANLINE_ENGINE_HEARTBEAT. Unknown names and invalid values are refused at start.

    With a NATS of your own: `fanline serve --nats nats://nats.example:4222` and FANLINE_NATS_USER with
    FANLINE_NATS_PASSWORD, or FANLINE_NATS_TOKEN, or FANLINE_NATS_CREDS=FILE; for TLS a tls:// URL and
    FANLINE_NATS_TLS_CA, _CERT and _KEY.

    By default everybody on this machine may do everything, and nobody else gets in. With `--auth token` clients need a
    token: `fanline token` signs one.

    Ctrl-C asks all clients to leave, waits up to drain_timeout (3 s) for them and ends; a second Ctrl-C ends at once.

    Exit codes: 0 after Ctrl-C, SIGTERM or SIGHUP, 1 if the server cannot run, 2 for wrong usage or settings.
    """
    flags = {"host": host, "port": port, "workers": workers, "nats": nats, "auth": auth, "data_dir": data_dir}
    settings = load_settings(flags, os.environ, _read_config(config))
    name_process("serve", " ".join(sys.argv[1:]))
    configure_logging("supervisor")
    raise_file_limit()
    trio.run(supervise, settings, Path(state_directory(os.environ)), typer.echo)


def main() -> int:
    """Run, and turn every expected error into one line on stderr and an exit code."""
    try:
        # `fanline serve` holds Ctrl-C back until here, so that it finds no import to interrupt.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT,))
        return app(prog_name=PROGRAM, standalone_mode=False) or 0
    except typer.TyperException as error:  # a usage error
        return _fail(f"{_in_our_words(error)} (see `{PROGRAM} --help`)", SettingsError.exit_code)
    except KeyboardInterrupt:  # before the server began
        return 0
    except (ServeError, BaseExceptionGroup) as error:
        cause = first_leaf(error)
        if not isinstance(cause, ServeError):
            raise
        return _fail(str(cause), cause.exit_code)


def _in_our_words(error: typer.TyperException) -> str:
    """Typer's message in the form of ours, with the most likely option instead of all similar ones."""
    message = error.format_message().rstrip(".")
    if nearest := getattr(error, "possibilities", None):  # set for an unknown option only
        message = f"{error}; did you mean {nearest[0]}?"
    return message[:1].lower() + message[1:]


def _read_config(path: str | None) -> tuple[str, str] | None:
    """(path, text) of the settings file. None if none was given and the working directory has none."""
    if path is None and not Path(CONFIG_NAME).exists():
        return None
    name = path or CONFIG_NAME
    try:
        return name, Path(name).read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"cannot read the settings file {name}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"the settings file {name} is not UTF-8 text") from None


def _fail(sentence: str, exit_code: int) -> int:
    typer.echo(f"fanline: error: {harmless(' '.join(sentence.split()))}", err=True)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
