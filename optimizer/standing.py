"""Who is too far behind to be worth more time: pure, and not deceived by a disturbed machine.

A contender is told by its best block, and a block by its middle: one block that nothing disturbed
is enough to show how fast somebody is, however bad all the others were, and a block of five runs
can be compared with one of a hundred. So nobody is given up for a bad block. Whoever is behind is
only looked at more briefly from then on, once a round, and runs on as before after one good look.
"""

from collections.abc import Mapping, Sequence

LIMITS = (2.0, 1.5, 1.25)
"""Times the best one's time that are too far behind, after each round."""


def laggards(blocks: Mapping[str, Sequence[float]], rounds: int) -> dict[str, float]:
    """Who is behind after so many rounds, and how many times the best one's time it takes.

    `blocks`: what a run took in each block so far, by name; at least one block each.
    """
    best = {name: min(times) for name, times in blocks.items()}
    first = min(best.values(), default=0.0)
    limit = LIMITS[min(rounds, len(LIMITS)) - 1]
    return {name: time / first for name, time in best.items() if time > limit * first}
