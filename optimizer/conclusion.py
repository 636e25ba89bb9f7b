"""All that a finished job knows: what a report is made of."""

from dataclasses import dataclass

from optimizer.artifact import Artifact
from optimizer.candidate import Outcome
from optimizer.contest import MachineLoad
from optimizer.device import Device
from optimizer.goal import Goal
from optimizer.plan import ModelFacts
from optimizer.selection import Selection
from optimizer.source import SourceModel
from optimizer.stages import Original


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The end of one job."""

    source: SourceModel
    goal: Goal
    device: Device
    original: Original
    facts: ModelFacts
    outcomes: tuple[Outcome, ...]  # the baseline first
    selection: Selection
    artifact: Artifact | None  # the winner, in the store; None: rejected
    load: MachineLoad
    seconds: float
    notes: tuple[str, ...]  # what was found out on the way: why a conversion was refused

    @property
    def baseline(self) -> Outcome:
        return self.outcomes[0]
