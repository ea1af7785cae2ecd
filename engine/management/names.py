"""Pages of names that are counted: users with their connections, channels with their subscribers."""

from collections.abc import Iterable
from heapq import nsmallest

from fanline.protocol.management.answers import CountedNames

_PAGE_BYTES = 512 * 1024  # about, of one answer: NATS takes 1 MiB


def page_of_names(counts: Iterable[tuple[str, int]], after: str, prefix: str, limit: int) -> CountedNames:
    """The first names behind `after`, in the order of their characters, of those that begin with `prefix`."""
    matching = [(name, count) for name, count in counts if name.startswith(prefix)]
    behind = [each for each in matching if each[0] > after]
    items, size = list[tuple[str, int]](), 0
    for each in nsmallest(limit, behind):
        size += 2 * len(each[0])
        if items and size > _PAGE_BYTES:
            break
        items.append(each)
    return CountedNames(items, len(matching), more=len(items) < len(behind))


def merge_names(parts: Iterable[CountedNames], limit: int) -> CountedNames:
    """One page of what several workers have told: a name's numbers are added. Names behind the last one of a worker
    that has more are left for the next page, since that worker may know them, too.
    """
    counts, ends, total = dict[str, int](), list[str](), 0
    for part in parts:
        for name, count in part.items:
            counts[name] = counts.get(name, 0) + count
        if part.more:
            ends.append(part.items[-1][0])
        total = max(total, part.total)
    known = [(name, counts[name]) for name in sorted(counts) if not ends or name <= min(ends)]
    return CountedNames(known[:limit], total, more=bool(ends) or len(known) > limit)
