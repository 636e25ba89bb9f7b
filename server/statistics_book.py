"""The statistics of the versions this process has served, kept beyond their unloading.

A counter that fell when a model is reloaded would read as a restart of the server in Prometheus,
and one that vanished with its version would hide what happened last; so what an unloaded version
had counted stays. But where every reload is a new version, they cannot all stay.
"""

from dataclasses import dataclass, field
from typing import Final

from server.statistics import VersionStatistics

ENDED_KEPT: Final = 4  # unloaded versions of one model whose totals are kept


@dataclass(slots=True)
class _Pages:
    """One version: the loadings that still answer, oldest first, and the sum of the ended ones."""

    live: list[VersionStatistics] = field(default_factory=list)
    ended: VersionStatistics | None = None

    def total(self) -> VersionStatistics:
        if len(self.live) == 1 and self.ended is None:
            return self.live[0]
        total = VersionStatistics()
        for statistics in (*([self.ended] if self.ended else []), *self.live):
            total.absorb(statistics)
        return total


@dataclass(frozen=True, slots=True)
class BookEntry:
    """One version: its totals since the process started, and its statistics while it serves."""

    model: str
    version: int
    total: VersionStatistics
    live: VersionStatistics | None  # the newest loading; None when unloaded


class StatisticsBook:
    """Adds up the statistics of all loadings of each version. Event loop only.

    Keeps one sum per version that serves and for the last `ENDED_KEPT` of each model that do not:
    tens of kilobytes for one that was used.
    """

    def __init__(self) -> None:
        self._pages: dict[tuple[str, int], _Pages] = {}

    def add(self, model: str, version: int, statistics: VersionStatistics) -> None:
        """Follows the statistics of a version that is about to serve."""
        self._pages.setdefault((model, version), _Pages()).live.append(statistics)

    def close(self, model: str, version: int, statistics: VersionStatistics) -> None:
        """Keeps the totals of a loading whose last request has ended, and forgets the rest."""
        pages = self._pages[model, version]
        pages.live.remove(statistics)
        statistics.queue_depth = 0  # nothing waits for a version that is closed
        if pages.ended is None:
            pages.ended = VersionStatistics()
        pages.ended.absorb(statistics)
        ended = [key for key, page in self._pages.items() if key[0] == model and not page.live]
        for key in ended[:-ENDED_KEPT]:
            del self._pages[key]

    def entries(self) -> list[BookEntry]:
        """The versions whose totals are kept, in the order of their first loading."""
        return [
            BookEntry(model, version, pages.total(), pages.live[-1] if pages.live else None)
            for (model, version), pages in self._pages.items()
        ]
