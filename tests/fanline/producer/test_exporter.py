"""The exporter of a process that forks."""

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
