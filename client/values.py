"""What goes into a prediction and what comes out of it, for both clients."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

from numpy.typing import ArrayLike

from client.errors import InferenceError
from protos.tensors import Array


class Options(TypedDict, total=False):
    """The keyword arguments of `predict` and `infer`: the fields of `Request` of that name."""

    version: int | None
    outputs: Sequence[str]
    priority: int
    explain: bool
    request_id: str
    timeout_s: float | None
    queue_timeout_s: float | None


@dataclass(frozen=True, slots=True)
class Request:
    """One prediction to ask for. Inputs are numpy arrays, or whatever `numpy.asarray` takes."""

    model: str
    inputs: Mapping[str, ArrayLike]
    version: int | None = None  # None: the server decides
    outputs: Sequence[str] = ()  # names of the outputs to return; empty: all
    priority: int = 0  # 1 is highest; 0: the model's default level
    explain: bool = False  # ask for `Prediction.timing`
    request_id: str = ""  # returned with the answer; a stream numbers requests that have none
    timeout_s: float | None = None  # longest wait for the answer, retries included
    queue_timeout_s: float | None = None  # longest wait in the server's queue


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time of one request went inside the server, in seconds, and in what company.

    Compute times are those of the whole batch; of a request that was split over several batches,
    their sum.
    """

    total_s: float  # arrival to answer
    queue_s: float  # enqueued to taken by an instance
    compute_s: float  # gathering the batch, running it, splitting its outputs
    compute_input_s: float  # the part spent gathering inputs
    compute_infer_s: float  # the part spent in the framework
    compute_output_s: float  # the part spent splitting outputs
    batch_size: int  # rows in the batch
    batch_requests: int  # requests in the batch
    batch_position: int  # row at which this request began
    padding_ratio: float  # padded / all input elements of the batch
    release_reason: str  # "full", "idle_instance", "window", "deadline" or "unbatched"


@dataclass(frozen=True, slots=True)
class Prediction:
    """An answer. Its arrays are read-only views on the received message: `copy()` to change one."""

    model: str
    version: int  # the version that answered
    request_id: str
    outputs: dict[str, Array] = field(default_factory=dict)
    served_by: str = ""  # the artifact that answered
    timing: Timing | None = None  # only where the request asked to explain
    error: InferenceError | None = None  # in streams: why this one request failed

    def result(self) -> dict[str, Array]:
        """The outputs.

        Raises:
            InferenceError: this request of a stream failed.
        """
        if self.error is not None:
            raise self.error
        return self.outputs
