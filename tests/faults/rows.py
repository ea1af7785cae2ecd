"""The rows of `make faults`."""

from tests.faults import kills
from tests.faults.fault import Fault

ROWS = (
    Fault(
        "worker",
        "kill -9 of a worker, twice",
        "replaced; its clients resume",
        kills.twice(kills.kill_worker),
        silence=6,
        log=r"worker \d \(pid \d+\) died \(signal 9\)",
    ),
    Fault(
        "monitor",
        "kill -9 of the worker that monitors the task, twice",
        "another worker takes its shares",
        kills.twice(kills.kill_monitor),
        silence=6,
        log=r"worker \d \(pid \d+\) died \(signal 9\)",
    ),
    Fault(
        "nats",
        "kill -9 of nats-server, twice",
        "replaced on the same port and store",
        kills.twice(kills.kill_nats),
        silence=10,
        log=r"nats-server \(pid \d+\) died \(signal 9\)",
    ),
    Fault(
        "supervisor",
        "kill -9 of the supervisor, twice, and a new start",
        "its children end with it; clients and producers come back",
        kills.twice(kills.kill_supervisor),
        silence=15,
    ),
    Fault(
        "sequence",
        "all four kills twice, in an order by the seed",
        "as for each of them",
        kills.kill_in_any_order,
        silence=15,
    ),
    Fault(
        "stop-worker",
        "SIGSTOP of a worker for 2.5 s and for 6 s",
        "it goes on; nobody else notices",
        kills.stopped(kills.a_worker, 2.5, 6.0),
        silence=10,
    ),
    Fault(
        "stop-nats",
        "SIGSTOP of nats-server for 2.5 s and for 6 s",
        "publishers are told, or wait; all goes on afterwards",
        kills.stopped(kills.the_nats_server, 2.5, 6.0),
        silence=15,
    ),
)
