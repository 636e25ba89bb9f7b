"""What the probes at load find out about a model: values only.

The probes themselves are `batch_probe` (do rows influence each other?), `pad_probe` (may rows be
padded?) and `latency_curve` (what does a batch cost?); `loader` runs them in order.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One measured batch size."""

    batch: int  # rows
    latency_s: float  # median of the timed runs
    fastest_s: float  # the quickest of them: what it costs when nothing disturbs

    @property
    def rows_per_s(self) -> float:
        return self.batch / max(self.fastest_s, 1e-9)


@dataclass(frozen=True, slots=True)
class PadPlan:
    """How requests of different lengths share a batch: zeros on the right, and what hides them.

    Every axis of `inputs` (the mask's too) is brought to the longest row's length with zeros. A
    client may leave the mask out; it is then ones for the request's own length.
    """

    inputs: tuple[tuple[str, int], ...]  # (input name, axis) that are padded; axis 0 is the batch
    outputs: tuple[tuple[str, int], ...]  # (output name, axis) cropped back to the row's own length
    mask: str = ""  # the input that says which positions count; empty: the model needs none


@dataclass(frozen=True, slots=True)
class Profile:
    """What was found out about one loaded version; shown to operators, read by the batcher."""

    batchable: bool  # requests may be merged and split along dimension 0
    reason: str = ""  # why requests run one by one; empty when batchable
    max_batch: int = 1  # rows of one batch; 1 where not batchable
    max_batch_reason: str = ""  # how max_batch was chosen, with numbers
    request_rows: int | None = None  # most rows one unmerged request may bring; None: no limit
    pad: PadPlan | None = None
    pad_reason: str = ""  # why `pad = "right"` was asked for and is not done
    curve: tuple[CurvePoint, ...] = ()  # by batch, ascending; one point (1) where not batchable
    warm_up_s: float = 0.0  # spent running every batch bucket before READY
    load_s: float = 0.0  # the whole load, warm-up included
    fallback: str = ""  # where it runs, and why not where it was to run first
