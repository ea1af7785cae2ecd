"""Pages of names with counts: users with their connections, channels with their subscribers."""

from collections.abc import Iterable, Sequence

from fanline.engine.management.statistics import CHUNK, LOOK_SECONDS
from fanline.engine.slices import Slices, lowest, pieces
from fanline.protocol.management.answers import CountedNames

_PAGE_BYTES = 512 * 1024  # about, of one answer: NATS takes 1 MiB


async def page_of_names(counts: Iterable[tuple[str, int]], after: str, prefix: str, limit: int) -> CountedNames:
    """The first names after `after`, in code point order, of those that begin with `prefix`. `counts` is read slice by
    slice.
    """
    slices, total, behind, first = Slices(LOOK_SECONDS), 0, 0, list[tuple[str, int]]()
    for piece in pieces(counts, CHUNK):
        matching = [each for each in piece if each[0].startswith(prefix)]
        following = [each for each in matching if each[0] > after]
        total, behind = total + len(matching), behind + len(following)
        first = lowest(first, following, limit)
        await slices.breathe()
    items = _that_fit(first)
    return CountedNames(items, total, more=len(items) < behind)


def _that_fit(names: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """Those of the first names that one answer has room for: one at least."""
    items, size = list[tuple[str, int]](), 0
    for each in names:
        size += 2 * len(each[0])
        if items and size > _PAGE_BYTES:
            break
        items.append(each)
    return items


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
