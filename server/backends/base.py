"""What the server asks of a framework: describe the tensors, run a batch. Nothing else."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from protos.signature import Signature
from protos.tensors import Array


class Backend(Protocol):
    """One artifact opened by one framework. `run` may be called from several threads at once."""

    signature: Signature
    platform: str  # the protocol's name for the format: "onnxruntime_onnx"
    artifact_id: str  # names the stored form that answers: "onnx-<12 hex digits of its hash>"
    devices: tuple[str, ...]  # where it runs: ("cpu",), ("cuda:0",)
    fallback: str  # why it does not run where it was to run first; empty when it does
    threads: int  # compute threads one `run` uses (its own included)
    is_in_process: bool  # False: a run may wait for another process, however short it usually is
    instances: int | None  # runs that it has at once; None: as many as there are threads for

    @property
    def memory_bytes(self) -> int:
        """What keeping it open costs: estimated from its weights; of processes, what they take."""
        ...

    def run(self, inputs: Mapping[str, Array], output_names: Sequence[str]) -> list[Array]:
        """Runs one batch; blocks; gives up the GIL. Returns one array per name, in their order.

        Raises:
            Exception: the framework's own; the caller makes a `BackendError` of it.
        """
        ...

    def interrupt(self, thread: int) -> None:
        """Ends the run that this thread waits for, where that is possible; nobody wants it."""
        ...

    def close(self) -> None:
        """Frees the artifact. No `run` is under way or follows."""
        ...
