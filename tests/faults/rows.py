"""The rows of `make faults`."""

from tests.faults.fault import Fault
from tests.faults.kinds import clocks, kills, shortages
from tests.faults.kinds.networks import BreakingNetwork, LossyLink

_LINK = LossyLink(loss=0.1, delay=0.2)
_NETWORK = BreakingNetwork()

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
        "by-turns",
        "kill -9 of the supervisor and of nats-server by turns, twice",
        "as for each of them",
        kills.kill_supervisor_and_nats,
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
    Fault(
        "disk",
        f"the disk ({shortages.DISK} of tmpfs) is full for 5 s",
        "publishers are told storage_full, the log and /readyz say it, and it recovers by itself",
        shortages.fill_disk,
        silence=20,
        log=r"(?i)storage|space",
        server=shortages.small_disk,
        namespaces=True,
    ),
    Fault(
        "files",
        f"{shortages.FILES} open files for each process, and more clients",
        "those for whom there is no room get 503; nobody else notices",
        shortages.exhaust_files,
        silence=3,
        server=shortages.few_files,
    ),
    Fault(
        "files-late",
        "the limit of open files is lowered while the workers run, and many clients come",
        "the same, and the log says it",
        shortages.exhaust_files_unforeseen,
        silence=3,
        log="cannot accept: .*; clients are turned away",
        server=shortages.few_files,
    ),
    Fault(
        "clock",
        "the clocks of a worker and of a producer step by one hour, in both directions",
        "nobody notices",
        clocks.step_worker_and_job,
        silence=3,
        server=clocks.probed_server,
    ),
    Fault(
        "clock-nats",
        "the clock of nats-server steps by one hour, in both directions",
        "nobody notices",
        clocks.step_nats_server,
        silence=3,
    ),
    Fault(
        "loss",
        "10 % of the packets between clients and server lost, 200 ms of delay in each direction",
        "all goes on, later",
        _LINK.lose,
        silence=25,
        recovery=30,
        server=_LINK.server,
        namespaces=True,
    ),
    Fault(
        "network",
        "connections are reset, ended, stalled and refused",
        "clients come back",
        _NETWORK.storm,
        silence=10,
        server=_NETWORK.server,
    ),
)
