"""Short forms of `make faults` and `make soak`; and the harness is broken on purpose, to see that it notices."""

import pytest
import trio

from tests.faults.fault import Fault, Stage
from tests.faults.kinds import kills
from tests.faults.row import run_row
from tests.faults.rows import ROWS
from tests.faults.soak.soak import soak
from tests.faults.table import cells
from tests.support.paths import ROOT
from tests.support.seeds import new_seed

SOAK_MINUTES = 0.33


async def kill_each_once(stage: Stage) -> None:
    for kill in (kills.kill_worker, kills.kill_nats, kills.kill_supervisor):
        await kill(stage)
        await trio.sleep(stage.chance.uniform(0.2, 1.0))


async def test_nobody_loses_anything_when_worker_nats_server_and_supervisor_are_killed() -> None:
    fault = Fault("short", "all killed", "all come back", kill_each_once, silence=20)
    report = await run_row(fault, new_seed())
    print(cells(report))
    assert report.findings is not None
    assert report.broken == []
    assert report.findings.acknowledged > 100


async def test_a_viewer_that_drops_a_message_and_a_publisher_that_counts_too_many_are_noticed() -> None:
    async def cheat(stage: Stage) -> None:
        del stage.crowd.viewers[0].messages[3]
        stage.crowd.viewers[1].messages.append(stage.crowd.viewers[1].messages[0])
        stage.crowd.mail.acknowledged.append("mail-never")

    report = await run_row(Fault("cheat", "none", "none", cheat, silence=20, settling=3), new_seed())
    assert report.findings is not None
    assert (report.findings.lost, report.findings.duplicates) == (2, 1)
    assert "mail-never" in report.broken[0]


async def test_after_a_short_soak_with_kills_nothing_is_left_behind() -> None:
    report = await soak(SOAK_MINUTES, new_seed())
    assert report.kills >= 1
    assert report.calls > 0
    assert report.broken == []
    assert report.grown == []


def test_every_row_has_a_name_of_its_own() -> None:
    assert len({fault.name for fault in ROWS}) == len(ROWS)


@pytest.mark.parametrize("fault", ROWS, ids=lambda fault: fault.name)
def test_every_row_is_on_the_page(fault: Fault) -> None:
    assert f"`{fault.name}`" in (ROOT / "docs" / "explanation" / "faults.md").read_text()
