"""How the demo shows its statistics: progress bars on a terminal, plain lines elsewhere."""

from collections import deque
from typing import Any

import trio
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from fanline.cli.demo.sample_build import TERMINAL
from fanline.cli.terminal import styled
from fanline.client.message import Message
from fanline.protocol.tasks.events import TaskEvent

FEED = "news:builds"
FRAME_SECONDS = 0.2
_LATENCIES = 20_000  # the newest ones: enough for a p99, and few enough to be sorted for every frame
_BAR_WIDTH = 40


class DemoStatistics:
    """What has been counted so far. Losses are only known for builds that have ended."""

    def __init__(self) -> None:
        self.finished = 0
        self.published = 0
        self.delivered = 0
        self.lost = 0
        self.builds: dict[str, dict[str, Any]] = {}
        """Running builds: name -> percent and message, as received by a subscriber."""
        self.ended: deque[str] = deque(maxlen=100)
        """Builds that have ended and were not shown yet, with how they ended."""
        self._latencies: deque[float] = deque(maxlen=_LATENCIES)

    def receive(self, seconds: float) -> None:
        """Count a delivery, which took `seconds`."""
        self.delivered += 1
        self._latencies.append(seconds)

    def show(self, name: str, message: Message) -> None:
        """Update a build from a message that it published."""
        build = self.builds.setdefault(name, {"percent": 0.0, "message": ""})
        build |= {key: message.data[key] for key in build if key in message.data}
        if message.event in TERMINAL:
            del self.builds[name]
            self.finished += message.event == TaskEvent.COMPLETED
            self.ended.append(f"{name} {str(message.event).removeprefix('task_')}")

    def milliseconds(self, percentile: int) -> float:
        """Latency in ms, from publishing to NATS until a subscriber has the decoded message; 0 before the first."""
        ordered = sorted(self._latencies)
        return ordered[len(ordered) * percentile // 100] * 1000 if ordered else 0.0

    def line(self) -> str:
        return (
            f"{self.published} published, {self.delivered} delivered, {self.lost} lost, "
            f"p50 {self.milliseconds(50):.1f} ms, p99 {self.milliseconds(99):.1f} ms"
        )

    def summary(self) -> str:
        return f"{self.finished} tasks finished: {self.line()}"


async def show(statistics: DemoStatistics, console: Console, url: str, participants: str) -> None:
    """Keep the display up to date until cancelled."""
    console.print(styled(f"Server on {url}, {participants}."))
    if not console.is_terminal:
        await _show_lines(statistics, console)
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            live.update(_display(statistics), refresh=True)
            await trio.sleep(FRAME_SECONDS)


async def _show_lines(statistics: DemoStatistics, console: Console) -> None:
    for command in _commands(statistics):
        console.print(styled(f"In another terminal: {command}"), soft_wrap=True)
    while True:
        while statistics.ended:
            console.print(styled(f"{statistics.ended.popleft()}: {statistics.line()}"), soft_wrap=True)
        await trio.sleep(FRAME_SECONDS)


def _display(statistics: DemoStatistics) -> Group:
    table = Table.grid(padding=(0, 2))
    for name, data in sorted(statistics.builds.items()):
        bar = ProgressBar(total=100, completed=data["percent"], width=_BAR_WIDTH)
        table.add_row(styled(name), bar, f"{data['percent']:.0f} %", styled(str(data["message"])))
    commands = [styled(f"  {command}", "cyan") for command in _commands(statistics)]
    return Group(table, "", styled(statistics.summary()), "", "Try in another terminal:", *commands)


def _commands(statistics: DemoStatistics) -> list[str]:
    newest = min(statistics.builds, key=lambda name: statistics.builds[name]["percent"], default="build-1")
    return [f"fanline tail task:{newest}", "fanline tasks", f"fanline sub {FEED}", f"fanline pub {FEED} '\"hello\"'"]
