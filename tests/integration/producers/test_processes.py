"""Jobs in processes that fork, under gevent, inside event loops, and at the end of the interpreter: on a real NATS."""

import os
import sys
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.support.nats.blocking import BlockingClient
from tests.support.nats.logins import tls_login
from tests.support.nats.server import running_nats
from tests.support.paths import ROOT
from tests.support.tasks.stored import (
    SECONDS,
    StoredTasks,
    create_stream,
    in_thread,
    lines_of,
    run_script,
    running_stream,
)

EVENTS = ["task_started", "task_output", "task_completed"]
SOCKETS = """
import os
from fanline.protocol.nats.addresses import parse_url
from tests.support.open_sockets import connections_to
def nats_sockets():
    return connections_to(parse_url(os.environ["NATS_URL"]).port)
"""


async def _run(nats: StoredTasks, script: str | Path) -> None:
    """Run a program, which must end well and say nothing."""
    ended = await in_thread(lambda: run_script(script, NATS_URL=nats.url))
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


async def _stored(nats: StoredTasks, task: str) -> list[str]:
    return [envelope["e"] for envelope in await nats.stored(task)]


# --- fork ---------------------------------------------------------------------------------------------------------


async def test_a_forked_process_has_its_own_exporter_and_none_of_the_parents_sockets() -> None:
    script = f"""{SOCKETS}
import fanline
with fanline.Task("parent") as task:
    while not nats_sockets():
        pass
    before = nats_sockets()
    child = os.fork()
    if not child:
        assert not nats_sockets() & before
        with fanline.Task("child") as mine:
            mine.log("hello from the child")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    task.log("hello from the parent")
    assert nats_sockets() == before
"""
    async with running_stream() as (_, nats):
        await _run(nats, script)
        for name in ("parent", "child"):
            assert await _stored(nats, name) == EVENTS
            assert lines_of(await nats.stored(name)) == [f"hello from the {name}"]


async def test_a_forked_process_leaves_the_parents_tls_connection_alone(tmp_path: Path) -> None:
    script = f"""{SOCKETS}
import fanline, time
with fanline.Task("parent") as task:
    while task.attempt is None:
        time.sleep(0.01)
    before = nats_sockets()
    child = os.fork()
    if not child:
        raise SystemExit(bool(nats_sockets()))
    assert os.waitpid(child, 0)[1] == 0
    task.log("on the same connection")
assert before
"""
    async with tls_login(tmp_path) as login:
        create_stream(login.options)
        environ = {"NATS_URL": login.options.servers[0], "FANLINE_NATS_TLS_CA": login.options.tls_ca}
        ended = await in_thread(lambda: run_script(script, **environ))
        assert (ended.returncode, ended.stderr) == (0, "")
        with BlockingClient(login.options) as client:
            assert b'"messages":3' in client.request("$JS.API.STREAM.INFO.FANLINE_task", b"")


async def test_forks_in_the_middle_of_everything_hang_nobody_and_lose_nothing() -> None:
    script = """
import fanline, logging, os, sys, threading
done = threading.Event()
def chatter(task):
    number = 0
    while not done.is_set():
        task.progress(done=number)
        number += 1
with fanline.Task("parent") as task:
    threading.Thread(target=chatter, args=(task,)).start()
    children = []
    for number in range(20):
        child = os.fork()
        if not child:
            logging.disable()  # a copy of the parent's task reports nothing, and warns
            task.log("left out")
            with fanline.Task(f"child-{number}") as mine:
                mine.log("x")
            done.set()
            sys.exit(0)
        children.append(child)
    assert {os.waitpid(child, 0)[1] for child in children} == {0}
    done.set()
"""
    async with running_stream() as (_, nats):
        await _run(nats, script)
        for number in range(20):
            assert await _stored(nats, f"child-{number}") == EVENTS
        stored = await _stored(nats, "parent")
        assert (stored[0], stored[-1]) == ("task_started", "task_completed")
        assert set(stored[1:-1]) == {"task_progress"}


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("early", [True, False], ids=["imported first", "imported by the child"])
async def test_children_of_multiprocessing_send_what_is_buffered(tmp_path: Path, method: str, early: bool) -> None:
    program = tmp_path / "program.py"
    program.write_text(f"""
import multiprocessing
{"import fanline" if early else ""}
def work(number):
    import fanline
    task = fanline.Task(f"child-{{number}}").__enter__()
    task.log("last words")
if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    children = [context.Process(target=work, args=(number,)) for number in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
""")
    async with running_stream() as (_, nats):
        await _run(nats, program)
        for number in range(3):
            assert await _stored(nats, f"child-{number}") == EVENTS[:2]


async def test_a_thread_that_a_child_of_multiprocessing_waits_for_reports_to_its_end(tmp_path: Path) -> None:
    script = """
import concurrent.futures, multiprocessing, threading
import fanline
from fanline.nats import thread

started, finished = threading.Event(), threading.Event()

def work():
    with fanline.Task("job") as task:
        started.set()
        finished.wait(1)  # it must not come before the job's end
        task.log("after the end of the main thread")

def child():
    finish = thread.finish_all
    thread.finish_all = lambda: (finish(), finished.set())
    concurrent.futures.ThreadPoolExecutor().submit(work)
    started.wait()

if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=child)
    process.start()
    process.join()
"""
    program = tmp_path / "job.py"
    program.write_text(script)
    async with running_stream() as (_, nats):
        await _run(nats, program)
        assert await _stored(nats, "job") == EVENTS


async def test_workers_of_celery_report_while_the_parent_has_a_task_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(f"""{SOCKETS}
import fanline
from celery import Celery
from celery.signals import worker_ready
queue = {str(tmp_path)!r}
app = Celery("jobs", broker="filesystem://")
app.conf.broker_transport_options = {{"data_folder_in": queue, "data_folder_out": queue, "control_folder": queue}}
parent = fanline.Task("parent").__enter__()  # before the pool is forked
while not nats_sockets():
    pass
inherited = nats_sockets()
@app.task
def job(name):
    assert not inherited & nats_sockets()
    with fanline.Task(name) as task:
        task.log(name)
@worker_ready.connect
def send(**_):
    for number in range(8):
        job.delay(f"job-{{number}}")
""")
    command = [sys.executable, "-m", "celery", "-A", "jobs", "worker", "--pool", "prefork", "-c", "2", "-l", "WARNING"]
    async with running_stream() as (_, nats), trio.open_nursery() as nursery:
        env = {**os.environ, "NATS_URL": nats.url, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
        process = await nursery.start(
            partial(trio.run_process, command, cwd=tmp_path, env=env, capture_stdout=True, capture_stderr=True)
        )
        for number in range(8):
            assert await nats.wait_for(f"job-{number}", "task_completed") == {"attempt": 1}
        process.terminate()
        with trio.fail_after(SECONDS):
            await process.wait()
        assert await _stored(nats, "parent") == EVENTS[:1]


async def test_workers_of_gunicorn_report_although_the_preloaded_application_does_too(tmp_path: Path) -> None:
    await _serve_with_gunicorn(tmp_path, "sync", ["--preload"])


async def test_workers_of_gunicorn_report_under_gevent(tmp_path: Path) -> None:
    await _serve_with_gunicorn(tmp_path, "gevent", ["--preload"])
    await _serve_with_gunicorn(tmp_path, "gevent", [])


async def _serve_with_gunicorn(directory: Path, worker_class: str, flags: list[str]) -> None:
    """Every request is a task; the application has one from its import on."""
    (directory / "web.py").write_text(f"""{SOCKETS}
import fanline
module = fanline.Task(f"module-{{os.getpid()}}").__enter__()
while not nats_sockets():
    module.log("import")
    import time; time.sleep(0.01)
inherited, importer = nats_sockets(), os.getpid()
def app(environ, start_response):
    assert os.getpid() == importer or not inherited & nats_sockets()
    with fanline.Task(environ["PATH_INFO"][1:]) as task:
        task.log("request")
    start_response("200 OK", [])
    return [b"done"]
""")
    socket = directory / "web.sock"
    # One worker: a second one could still be starting when the master is told to stop, and then misses the signal.
    flags = ["-w", "1", "-k", worker_class, "-b", f"unix:{socket}", "--no-control-socket", *flags]
    command = [sys.executable, "-m", "gunicorn", *flags, "web:app"]
    async with running_stream() as (_, nats), trio.open_nursery() as nursery:
        env = {**os.environ, "NATS_URL": nats.url, "PYTHONPATH": f"{directory}:{ROOT}"}
        process = await nursery.start(
            partial(trio.run_process, command, cwd=directory, env=env, capture_stdout=True, capture_stderr=True)
        )
        with trio.fail_after(SECONDS):
            for number in range(6):
                async with await _connect(socket) as stream:
                    await stream.send_all(b"GET /job-%d HTTP/1.0\r\n\r\n" % number)
                    answer = b"".join([data async for data in stream])
                assert answer.endswith(b"done"), answer
                assert await _stored(nats, f"job-{number}") == EVENTS
            process.terminate()
            await process.wait()
    socket.unlink(missing_ok=True)


async def _connect(socket: Path) -> trio.SocketStream:
    """Connect as soon as there is somebody to connect to."""
    while True:
        try:
            return await trio.open_unix_socket(str(socket))
        except (FileNotFoundError, ConnectionRefusedError):
            await trio.sleep(0.02)


# --- gevent -------------------------------------------------------------------------------------------------------

_PATCH = "from gevent import monkey; monkey.patch_all()"
PATCHED = pytest.mark.parametrize(
    "imports",
    [
        _PATCH + "\nimport fanline",
        "import fanline; fanline.Task\n" + _PATCH,
    ],
    ids=["patched before the import", "patched after the import"],
)


@PATCHED
async def test_greenlets_report_side_by_side(imports: str) -> None:
    script = f"""{imports}
import gevent
def job(number):
    with fanline.Task(f"job-{{number}}", heartbeat=0.3) as task:
        for step in task.track(range(5)):
            gevent.sleep(0.02)
        task.log("x")
gevent.joinall([gevent.spawn(job, number) for number in range(30)], raise_error=True)
"""
    async with running_stream() as (_, nats):
        await _run(nats, script)
        for number in range(30):
            stored = await _stored(nats, f"job-{number}")
            assert (stored[0], stored[-2:]) == ("task_started", EVENTS[1:])


@PATCHED
async def test_a_viewer_can_cancel_a_greenlet(imports: str) -> None:
    script = f"""{imports}
import gevent
try:
    with fanline.Task("job") as task:
        while True:
            gevent.sleep(0.01)
            task.progress(1)
except fanline.TaskCancelled as cancelled:
    assert cancelled.by == "ann"
"""
    async with running_stream() as (_, nats), trio.open_nursery() as nursery:
        nursery.start_soon(_run, nats, script)
        await nats.wait_for("job", "task_started")
        assert await nats.call("job", "cancel") == {"v": 1, "t": "ok"}
        assert (await nats.wait_for("job", "task_cancelled"))["by"] == "ann"


@PATCHED
async def test_a_name_is_looked_up_and_tls_works_under_gevent(imports: str, tmp_path: Path) -> None:
    script = f"""{imports}
with fanline.Task("job") as task:
    task.log("x")
"""
    async with tls_login(tmp_path) as login:
        create_stream(login.options)
        environ = {"NATS_URL": login.options.servers[0], "FANLINE_NATS_TLS_CA": login.options.tls_ca}
        ended = await in_thread(lambda: run_script(script, **environ))
        assert (ended.returncode, ended.stderr) == (0, "")
        with BlockingClient(login.options) as client:
            assert b'"messages":3' in client.request("$JS.API.STREAM.INFO.FANLINE_task", b"")


@PATCHED
async def test_a_process_that_is_forked_under_gevent_has_its_own_exporter(imports: str) -> None:
    script = f"""{imports}
{SOCKETS}
import gevent, sys
with fanline.Task("parent") as task:
    while not nats_sockets():
        gevent.sleep(0.01)
    before = nats_sockets()
    child = os.fork()
    if not child:
        assert not nats_sockets()
        gevent.sleep(0.7)  # the copy of the parent's exporter would have its turn
        with fanline.Task("child") as mine:
            mine.log("x")
        sys.exit()
    pid, status = os.waitpid(child, 0)
    assert status == 0, status
    task.log("x")
    assert nats_sockets() == before
"""
    async with running_stream() as (_, nats):
        await _run(nats, script)
        for name in ("parent", "child"):
            assert await _stored(nats, name) == EVENTS


@PATCHED
async def test_without_a_server_greenlets_are_unharmed(imports: str) -> None:
    script = f"""{imports}
with fanline.Task("job", nats="localhost:1", linger=0.1) as task:
    task.log("x")
print("unharmed")
"""
    ended = await in_thread(lambda: run_script(script))
    assert (ended.returncode, ended.stdout) == (0, "unharmed\n")
    assert ended.stderr.splitlines() == [
        "task events are waiting for NATS: cannot connect to nats://localhost:1: Connection refused",
        "task job: 2 events and 1 more lines of output were not stored within 0.1 seconds of its end and may be lost "
        "(cannot connect to nats://localhost:1: Connection refused)",
    ]


# --- event loops --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", ["asyncio.run(main())", "trio.run(main)"])
async def test_a_sync_task_can_be_used_inside_a_running_event_loop(run: str) -> None:
    script = f"""
import asyncio, fanline, trio
async def main():
    with fanline.Task("job") as task:
        task.log("x")
    with fanline.Task("next") as task:
        task.log("x")
{run}
"""
    async with running_stream() as (_, nats):
        await _run(nats, script)
        for name in ("job", "next"):
            assert await _stored(nats, name) == EVENTS


# --- the end of the interpreter -----------------------------------------------------------------------------------

ENDINGS = {
    "the end of the program": ("task = fanline.Task('job').__enter__(); task.log('last words')", 0, EVENTS[:2]),
    "sys.exit": ("with fanline.Task('job') as task:\n  task.log('x')\n  sys.exit(3)", 3, [*EVENTS[:2], "task_failed"]),
    "sys.exit without an error": ("with fanline.Task('job') as task:\n  task.log('x')\n  sys.exit()", 0, EVENTS),
    "an exception": ("with fanline.Task('job') as task:\n  task.log('x')\n  1 / 0", 1, [*EVENTS[:2], "task_failed"]),
    "Ctrl-C": (
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of a shell\n"
        "with fanline.Task('job') as task:\n  task.log('x')\n  os.kill(os.getpid(), signal.SIGINT); time.sleep(9)",
        -2,
        [*EVENTS[:2], "task_cancelled"],
    ),
    "a daemon thread that goes on": (
        "def work():\n  with fanline.Task('job') as task:\n    task.log('x'); ready.set(); time.sleep(99)\n"
        "ready = threading.Event(); threading.Thread(target=work, daemon=True).start(); ready.wait()",
        0,
        EVENTS[:2],
    ),
    "a thread that the interpreter waits for": (
        "def work():\n  with fanline.Task('job') as task:\n    time.sleep(0.2); task.log('x')\n"
        "threading.Thread(target=work).start()",
        0,
        EVENTS,
    ),
    "a task in an exit handler": (
        "@atexit.register\ndef work():\n  block.__exit__(None, None, None)\n"
        "block = fanline.Task('job'); task = block.__enter__(); task.log('x')",
        0,
        EVENTS,
    ),
}


@pytest.mark.parametrize(("program", "code", "events"), ENDINGS.values(), ids=ENDINGS)
async def test_what_is_buffered_at_the_end_of_the_program_is_sent(program: str, code: int, events: list[str]) -> None:
    script = f"import atexit, os, signal, sys, threading, time, fanline\n{program}"
    async with running_stream() as (_, nats):
        ended = await in_thread(lambda: run_script(script, NATS_URL=nats.url))
        assert ended.returncode == code, ended.stderr
        assert await _stored(nats, "job") == events


async def test_a_program_does_not_hang_at_its_end_when_nats_does_not_answer() -> None:
    script = "import fanline; task = fanline.Task('job', linger=0.3).__enter__(); task.log('x')"
    async with running_nats() as server:
        server.pause()
        with trio.fail_after(10):
            ended = await in_thread(lambda: run_script(script, NATS_URL=server.url))
        assert ended.returncode == 0
        assert "may be lost" in ended.stderr


async def test_a_thread_that_cannot_be_started_is_an_error_in_the_log_and_nothing_else() -> None:
    script = """
import fanline, threading
def start(thread):
    raise RuntimeError("can't start new thread")
fanline.Task
threading.Thread.start = start
with fanline.Task("job", nats="localhost") as task:
    task.log("x")
"""
    ended = await in_thread(lambda: run_script(script))
    assert (ended.returncode, ended.stderr) == (
        0,
        "the events of this process's tasks are not published: can't start new thread\n",
    )


async def test_a_process_without_free_file_descriptors_keeps_its_job() -> None:
    script = """
import fanline, os, resource
fanline.Task
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
held = []
try:
    while True:
        held.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
with fanline.Task("job", nats="127.0.0.1:1", linger=0.1) as task:
    task.log("x")
"""
    ended = await in_thread(lambda: run_script(script))
    assert ended.returncode == 0
    assert ended.stderr == "the events of task job are not published: [Errno 24] Too many open files\n"
