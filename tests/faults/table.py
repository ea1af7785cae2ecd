"""The table at the end."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from tests.faults.row import RowReport

_WIDTH = 190
"""Where the output is no terminal."""


def print_table(reports: Sequence[RowReport]) -> None:
    console = Console()
    table = Table(title="Faults", show_lines=True, title_justify="left")
    for heading in ("fault", "promised: no loss, no duplicate, no gap, and"):
        table.add_column(heading)
    for heading in ("acknow-\nledged", "lost", "dupli-\ncates", "gaps", "longest\nsilence"):
        table.add_column(heading, justify="right")
    for heading in ("publishers\nwere told", "the log said", "verdict"):
        table.add_column(heading)
    for report in reports:
        table.add_row(*cells(report))
    Console(width=console.width if console.is_terminal else _WIDTH).print(table, markup=False)


def cells(report: RowReport) -> list[str]:
    """One row of the table."""
    found = report.findings
    if found is None:
        return [report.title, report.promise, *["-"] * 7, verdict(report)]
    told = ", ".join(f"{count} x {code}" for code, count in sorted(report.refused.items())) or "nothing"
    counts = [str(number) for number in (found.acknowledged, found.lost, found.duplicates, found.gaps)]
    return [report.title, report.promise, *counts, f"{found.silence:.1f} s", told, report.log, verdict(report)]


def verdict(report: RowReport) -> str:
    if report.findings is None:
        return f"not tried: {report.skipped}"
    return f"BROKEN: {'; '.join(report.broken)}" if report.broken else "kept"
