"""What a load generator is asked for and what it measured."""

from collections.abc import Mapping
from dataclasses import dataclass

from protos.tensors import Array


@dataclass(frozen=True, slots=True)
class Load:
    """Closed-loop load: `concurrency` requests always in flight, each of one row."""

    address: str  # host:port of a server that speaks the Open Inference Protocol
    model: str
    inputs: Mapping[str, Array]  # the one row every request sends; dimension 0 is 1
    concurrency: int
    duration_s: float


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What came of it; latencies as the client saw them, in milliseconds."""

    client: str  # which generator: "perf_analyzer" or "python"
    concurrency: int
    per_s: float  # requests answered per second
    p50_ms: float
    p95_ms: float
    p99_ms: float
