"""The values that travel from a front door through the batcher and back.

Instants are `time.monotonic()` seconds; lengths of time are float seconds and end in `_s`.
"""

import time
from dataclasses import dataclass, field
from enum import StrEnum

from protos.tensors import Array


class ReleaseReason(StrEnum):
    """Why a batch left the queue."""

    FULL = "full"  # no more rows fit
    IDLE_INSTANCE = "idle_instance"  # an instance was free and no window asked to hold
    WINDOW = "window"  # the oldest entry had waited for the whole batch window
    DEADLINE = "deadline"  # holding longer would have cost an entry its deadline
    UNBATCHED = "unbatched"  # this model runs its requests one by one


@dataclass(slots=True)
class InferRequest:
    """One prediction asked for. `inputs` are views on the received bytes; nobody writes to them."""

    model: str
    inputs: dict[str, Array]
    version: int | None = None  # None: the version policy decides
    output_names: tuple[str, ...] = ()  # empty: all
    request_id: str = ""
    priority: int = 0  # 1 is highest; 0 is the model's default
    deadline: float | None = None  # instant after which nobody waits for the answer
    queue_timeout_s: float | None = None  # longest time in the queue the client accepts
    explain: bool = False
    arrived: float = field(default_factory=time.monotonic)


@dataclass(slots=True)
class Timing:
    """Where one request's time went, and in what company it ran.

    Compute times are those of the whole batch, charged to each of its requests (as Triton
    does); a request split over several batches carries their sums, and waits until the first.
    """

    total_s: float = 0.0  # arrival to answer
    queue_s: float = 0.0  # enqueued to taken
    compute_input_s: float = 0.0  # gathering the batch's inputs
    compute_infer_s: float = 0.0  # inside the backend
    compute_output_s: float = 0.0  # splitting the outputs
    batch_rows: int = 0
    batch_requests: int = 0
    batch_position: int = 0  # row offset of this request in its batch
    padding_ratio: float = 0.0  # padded elements / all elements of the batch's inputs
    release_reason: ReleaseReason = ReleaseReason.UNBATCHED

    @property
    def compute_s(self) -> float:
        return self.compute_input_s + self.compute_infer_s + self.compute_output_s


@dataclass(slots=True)
class InferResponse:
    """The answer to one `InferRequest`; `outputs` may be views on the batch's output."""

    model: str
    version: int
    request_id: str
    outputs: dict[str, Array]
    served_by: str  # artifact id
    timing: Timing
