"""A server that is stopped while notifications wait: a normal stop looks like one."""

import os
import signal

import pytest
import trio

from tests.integration.notifications.receivers import notifying
from tests.integration.notifications.test_faults import ask, set_addresses
from tests.support.servers.serve import wait_until


@pytest.mark.parametrize("seconds", [0.0, 0.5])
async def test_a_busy_server_that_is_stopped_ends_in_time_and_logs_no_fault(seconds: float) -> None:
    # nats-server was told to end together with the control process, which saw an outage, and waited for its end.
    with trio.fail_after(120):
        async with notifying() as all_of:
            await set_addresses(all_of)
            all_of.service.seconds = seconds
            await ask(all_of, [f"n-{number}" for number in range(300)], channels=["websocket", "push", "email"])
            await wait_until(lambda: bool(all_of.service.taken and all_of.mail.taken), 60)
            os.kill(all_of.serve.pid, signal.SIGTERM)
            await wait_until(lambda: "supervisor: stopped" in all_of.serve.stderr_text(), 30)
            said = all_of.serve.stderr_text().partition("SIGTERM: stopping")[2]
            assert [line for line in said.splitlines() if " INFO " not in line and " supervisor: " in line] == []
            assert "notifications wait" not in said
