"""The exporter of a process that forks, or that a signal interrupts."""

import pytest

from tests.support.nats.server import running_nats
from tests.support.tasks.stored import run_script

pytestmark = pytest.mark.process

FORK_WHILE_IT_CLOSES = """
import os, threading
import fanline
from fanline.nats.loop import NatsLoop

closing, forked = threading.Event(), threading.Event()
parent, close = os.getpid(), NatsLoop.close

def close_late(loop):
    if os.getpid() == parent:
        closing.set()
        forked.wait()
    close(loop)

NatsLoop.close = close_late
with fanline.Task("job", nats=os.environ["URL"], linger=0.1):
    pass
closing.wait()
child = os.fork()
if not child:
    paths = (f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd"))
    os._exit(sum(os.readlink(path).startswith("socket:") for path in paths if os.path.exists(path)))
print("sockets in the child:", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
forked.set()
"""


async def test_a_child_has_no_socket_of_an_exporter_that_is_just_ending() -> None:
    async with running_nats(jetstream=False) as server:
        ended = run_script(FORK_WHILE_IT_CLOSES, URL=server.url)
    assert ended.stdout == "sockets in the child: 0\n", ended.stderr


SIGNAL_WHILE_IT_STARTS = """
import faulthandler, signal
import fanline
from fanline.nats.waker import Waker

faulthandler.dump_traceback_later(10, exit=True)
NOWHERE = "nats://127.0.0.1:1"
make_waker = Waker.__init__

def interrupted(waker):
    Waker.__init__ = make_waker
    make_waker(waker)
    signal.raise_signal(signal.SIGUSR1)

def report(*_):
    with fanline.Task("handler", nats=NOWHERE, linger=0):
        print("reported")

signal.signal(signal.SIGUSR1, report)
Waker.__init__ = interrupted
with fanline.Task("job", nats=NOWHERE, linger=0):
    pass
"""


def test_a_signal_handler_may_report_a_task_while_one_is_being_started() -> None:
    ended = run_script(SIGNAL_WHILE_IT_STARTS)
    assert (ended.stdout, ended.returncode) == ("reported\n", 0), ended.stderr
