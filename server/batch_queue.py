"""The entries that wait for an instance, in the order in which they will leave. No clock, no loop.

Entries that may share a batch have the same `group`. The next batch is led by the oldest entry
of the highest priority; entries of its group follow, higher priorities first.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Generic, Protocol, TypeVar

Group = Hashable

DELAYED = 2**32
"""Added to the priority of an entry that timed out: it leaves when nobody else waits."""


class Queueable(Protocol):
    """What the queue needs to know of an entry."""

    sequence: int  # order of arrival, unique
    priority: int  # 1 is highest
    group: Group
    rows: int


E = TypeVar("E", bound=Queueable)


class BatchQueue(Generic[E]):
    """Entries by priority and group. Adding, removing and taking cost O(1) each.

    (A removed entry leaves nothing behind: callers that give up cannot fill the memory.)
    """

    def __init__(self) -> None:
        self._levels: dict[int, dict[Group, OrderedDict[int, E]]] = {}
        self._order: list[int] = []  # priorities in use, highest first
        self._level_sizes: dict[int, int] = {}
        self.rows = 0
        self.entries = 0

    def __len__(self) -> int:
        return self.entries

    def waiting_at(self, priority: int) -> int:
        """Number of entries of one priority, delayed ones included."""
        sizes = self._level_sizes
        return sizes.get(priority, 0) + sizes.get(priority + DELAYED, 0)

    def add(self, entry: E) -> None:
        level = self._levels.get(entry.priority)
        if level is None:
            level = self._levels[entry.priority] = {}
            self._order = sorted(self._levels)
        queue = level.get(entry.group)
        if queue is None:
            queue = level[entry.group] = OrderedDict()
        queue[entry.sequence] = entry
        self._count(entry, 1)

    def remove(self, entry: E) -> bool:
        """Takes one entry out, wherever it stands; False when it is not waiting any more."""
        level = self._levels.get(entry.priority, {})
        queue = level.get(entry.group)
        if queue is None or queue.pop(entry.sequence, None) is None:
            return False
        if not queue:
            del level[entry.group]
        self._count(entry, -1)
        return True

    def groups(self) -> Iterator[Group]:
        """Each waiting group once, in the order in which the groups would be served."""
        seen: set[Group] = set()
        for priority in self._order:
            level = self._levels[priority]
            for group in sorted(level, key=lambda g: next(iter(level[g]))):
                if group not in seen:
                    seen.add(group)
                    yield group

    def head_group(self) -> Group:
        """The group that is served next. The queue must not be empty."""
        for priority in self._order:
            level = self._levels[priority]
            if len(level) == 1:
                return next(iter(level))
            if level:
                return min(level, key=lambda g: next(iter(level[g])))
        raise LookupError("the queue is empty")

    def of_group(self, group: Group) -> Iterator[E]:
        """The entries of one group in the order in which they would leave."""
        for priority in self._order:
            yield from self._levels[priority].get(group, {}).values()

    def rows_of(self, group: Group, enough: int) -> int:
        """Rows waiting in one group, counted no further than `enough`."""
        rows = 0
        for entry in self.of_group(group):
            rows += entry.rows
            if rows >= enough:
                break
        return rows

    def take(self, group: Group, max_rows: int) -> list[E]:
        """Takes entries of one group until the next one would not fit; at least one."""
        taken: list[E] = []
        rows = 0
        for priority in self._order:
            level = self._levels[priority]
            queue = level.get(group)
            while queue:
                entry = next(iter(queue.values()))
                if taken and rows + entry.rows > max_rows:
                    return taken
                del queue[entry.sequence]
                if not queue:
                    del level[group]
                self._count(entry, -1)
                taken.append(entry)
                rows += entry.rows
        return taken

    def drain(self) -> list[E]:
        """Takes everything, in no particular order."""
        left = [entry for group in list(self.groups()) for entry in self.of_group(group)]
        for entry in left:
            self.remove(entry)
        return left

    def _count(self, entry: E, sign: int) -> None:
        self.entries += sign
        self.rows += sign * entry.rows
        sizes = self._level_sizes
        sizes[entry.priority] = sizes.get(entry.priority, 0) + sign
