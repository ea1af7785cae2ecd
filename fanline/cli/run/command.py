"""The command line of `fanline run`."""

from functools import partial
from pathlib import PurePath
from typing import Annotated, Any

import typer

from fanline.cli.nats_flags import (
    NatsCreds,
    NatsNkey,
    NatsTlsCa,
    NatsTlsCert,
    NatsTlsKey,
    NatsUrl,
    nats_from_flags,
)
from fanline.cli.options import Url, task_id
from fanline.cli.run.execution import RunOptions, execute, program_name
from fanline.cli.run.job import ViewerRights
from fanline.cli.run.progress_lines import MainBar, Reader, no_progress, pattern_reader
from fanline.cli.runner import run
from fanline.local import URL_VARIABLE
from fanline.producer.checks import MAX_NAME, short
from fanline.producer.fresh_id import fresh_id


def _title(title: str, rights: ViewerRights) -> str:
    return short("title", title, MAX_NAME - len(rights.title_suffix)) + rights.title_suffix


def _reader(pattern: str | None) -> str | None:
    """Checks the option."""
    try:
        if pattern is not None:
            pattern_reader(pattern)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return pattern


def _progress_reader(pattern: str | None, *, off: bool) -> Reader:
    if off:
        return no_progress
    return MainBar() if pattern is None else pattern_reader(pattern)


def _id_or_none(text: str | None) -> str | None:
    return None if text is None else task_id(text)


def add_run(app: typer.Typer) -> None:
    """Register the command."""
    app.command("run", short_help="Run a command as a task that others can watch and stop.", **_OPTIONS)(_run)


_OPTIONS: dict[str, Any] = {"context_settings": {"ignore_unknown_options": True, "allow_interspersed_args": False}}


def _run(
    command: Annotated[list[str], typer.Argument(metavar="CMD ARGS...", help="Command to run, without a shell.")],
    task: Annotated[
        str | None,
        typer.Option(
            metavar="ID", callback=_id_or_none, help="ID of the task. [default: the command's name and a suffix]"
        ),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Title that viewers see. [default: the program's name]")] = None,
    heartbeat: Annotated[
        float, typer.Option(min=0.1, max=86_400, help="Seconds of silence after which viewers see the task as stalled.")
    ] = 10.0,
    grace: Annotated[
        float, typer.Option(min=0, max=86_400, help="Seconds from SIGTERM to SIGKILL when a viewer stops the command.")
    ] = 10.0,
    takes_input: Annotated[
        bool, typer.Option("--input", help="Let viewers type: their input goes to the command's stdin.")
    ] = False,
    no_cancel: Annotated[bool, typer.Option("--no-cancel", help="Do not let viewers stop or pause it.")] = False,
    tty: Annotated[
        bool, typer.Option("--tty", help="Give it a terminal of its own, for prompts, colours and redrawn screens.")
    ] = False,
    ignore_progress: Annotated[
        bool, typer.Option("--no-progress", help="Do not look for progress in its output.")
    ] = False,
    progress_pattern: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            callback=_reader,
            help=r"What progress looks like: a group for the percentage, or two, as in 'step (\d+)/(\d+)'.",
        ),
    ] = None,
    url: Url = None,
    nats: NatsUrl = None,
    nats_creds: NatsCreds = None,
    nats_nkey: NatsNkey = None,
    nats_tls_ca: NatsTlsCa = None,
    nats_tls_cert: NatsTlsCert = None,
    nats_tls_key: NatsTlsKey = None,
) -> None:
    """Run a command as a task: viewers see its output, progress and end, and can stop it.

    \b
      fanline run -- make -j8
      fanline run --task nightly --title "Nightly build" -- ./build.sh --all
      fanline tail task:nightly

    The command's output also appears here, unchanged. Progress is read from lines such as 42% or [3/10]. The command,
    and every script in it, reports more with `fanline progress`, `fanline log`, `fanline ask` and `fanline result`, in
    Python with `fanline.current_task()`. Without a server the command runs nevertheless.

    A viewer's `cancel` sends SIGTERM, and SIGKILL --grace seconds later; `pause` and `resume` send SIGSTOP and SIGCONT;
    with --input, `input` writes a line to the command's stdin. Our stdin is passed on to the command. Of the command
    line, viewers see the program's name only.

    Exit code: the command's; 128 + n if signal n killed it; 127 if there is no such command, 126 if it cannot be run.
    """
    if command[0].startswith("-"):  # Click takes an option that it does not know for the command
        raise typer.BadParameter(f"no such option: {command[0]} (a command of this name needs its path)")
    if ignore_progress and progress_pattern is not None:
        raise typer.BadParameter("give --no-progress or --progress-pattern, not both")
    rights = ViewerRights(type=takes_input, stop=not no_cancel)
    options = RunOptions(
        argv=command,
        id=task or fresh_id(PurePath(command[0]).name),
        title=_title(title or program_name(command), rights),
        heartbeat=heartbeat,
        grace=grace,
        nats=nats_from_flags(
            nats,
            server=url,
            creds=nats_creds,
            nkey=nats_nkey,
            tls_ca=nats_tls_ca,
            tls_cert=nats_tls_cert,
            tls_key=nats_tls_key,
        ),
        rights=rights,
        tty=tty,
        read_progress=_progress_reader(progress_pattern, off=ignore_progress),
        environ={} if url is None else {URL_VARIABLE: url},
    )
    run(partial(execute, options))
